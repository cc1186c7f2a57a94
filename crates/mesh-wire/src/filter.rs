//! Packet filters: who may send what to the node that receives them.
//!
//! The obsolete `SrcBits` and `Bits` have no field here: a client that finds one denies everything.
//!
//! Source: tailscale `tailcfg/tailcfg.go`, `FilterRule` and what it holds.

use std::sync::Arc;

use ipnet::IpNet;

use crate::CapMap;
use crate::codec::wire_struct;

wire_struct! {
    /// Lets sources reach ports of the node, or grants them capabilities there; never both.
    pub struct FilterRule {
        /// Address, CIDR, `a-b`, `*` or `cap:<node attribute>`.
        pub src_ips: Arc<[Arc<str>]> = "SrcIPs" (always);
        /// What may be reached. Excludes `cap_grant`.
        pub dst_ports: Vec<NetPortRange> = "DstPorts";
        /// IP protocol numbers; empty is TCP, UDP and ICMP.
        pub ip_proto: Vec<i32> = "IPProto";
        /// Application capabilities of the sources. Excludes `dst_ports`.
        pub cap_grant: Vec<CapGrant> = "CapGrant";
    }
}

wire_struct! {
    /// Destination addresses with ports.
    pub struct NetPortRange {
        /// Address, CIDR, `a-b` or `*`.
        pub ip: Arc<str> = "IP" (always);
        /// The ports.
        pub ports: PortRange = "Ports" (always);
    }
}

wire_struct! {
    /// Ports, both ends included.
    #[derive(Copy, Eq)]
    pub struct PortRange {
        /// The first port.
        pub first: u16 = "First" (always);
        /// The last port.
        pub last: u16 = "Last" (always);
    }
}

impl PortRange {
    /// Every port, and the only range that protocols without ports match.
    pub const ANY: Self = Self { first: 0, last: u16::MAX };
}

wire_struct! {
    /// Capabilities that the sources of a rule have towards some addresses.
    pub struct CapGrant {
        /// Where they have them: normally the receiver's own addresses.
        pub dsts: Vec<IpNet> = "Dsts" (always);
        /// Capabilities without values.
        pub caps: Vec<String> = "Caps";
        /// Capabilities with values.
        pub cap_map: CapMap = "CapMap";
    }
}
