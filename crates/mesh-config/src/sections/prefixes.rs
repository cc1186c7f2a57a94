//! `prefixes`: addresses of nodes.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::finding::Report;
use crate::key::section;
use crate::types::choice;

/// The range that clients take for addresses of a tailnet (`net/tsaddr`, `CGNATRange`).
const CGNAT: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);

/// Its counterpart in IPv6 (`net/tsaddr`, `TailscaleULARange`).
const ULA: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0), 48);

section! {
    /// Addresses of nodes.
    pub struct Prefixes {
        /// IPv4 prefix that nodes get addresses from, `100.64.0.0/10` or a part of it; "" for none.
        pub v4: Option<Ipv4Net> = "prefixes.v4", "100.64.0.0/10";
        /// IPv6 prefix that nodes get addresses from, `fd7a:115c:a1e0::/48` or a part of it;
        /// "" for none.
        pub v6: Option<Ipv6Net> = "prefixes.v6", "fd7a:115c:a1e0::/48";
        /// How a free address is chosen: sequential or random.
        pub allocation: Allocation = "prefixes.allocation", "sequential";
    }
}

choice! {
    /// How a free address is chosen.
    pub enum Allocation {
        /// The next free one.
        Sequential = "sequential",
        /// Any free one.
        Random = "random",
    }
}

impl Prefixes {
    pub(crate) fn check(&self, report: &mut Report) {
        if self.v4.is_none() && self.v6.is_none() {
            report.error("prefixes.v4", "nodes need addresses; set prefixes.v4 or prefixes.v6");
        }
        if self.v4.is_some_and(|net| !CGNAT.contains(&net)) {
            report.warning("prefixes.v4", outside(CGNAT.into()));
        }
        if self.v6.is_some_and(|net| !ULA.contains(&net)) {
            report.warning("prefixes.v6", outside(ULA.into()));
        }
    }
}

fn outside(range: IpNet) -> String {
    format!("lies outside {range}; clients rely on that range and fail in odd ways without it")
}
