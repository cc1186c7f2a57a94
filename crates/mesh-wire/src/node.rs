//! A node as a client is told of it, and the patch that changes one.
//!
//! Source: tailscale `tailcfg/tailcfg.go`, `Node`, `PeerChange`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use mesh_keys::{DiscoPublic, MachinePublic, NodePublic};

use crate::codec::wire_struct;
use crate::{Base64, CapabilityVersion, DerpRegionId, Hostinfo, NodeId, RawJson, Resolver, UserId};

/// Capabilities with their values; a plain flag has `None`, written `null`.
pub type CapMap = BTreeMap<String, Option<Vec<RawJson>>>;

wire_struct! {
    /// A node, the client's own or a peer, as one client is told of it.
    pub struct Node {
        /// Unique for ever in the life of the tailnet.
        pub id: NodeId = "ID" (always);
        /// Unique and opaque; what preferences and `SshPrincipal::node` name.
        pub stable_id: String = "StableID" (always);
        /// Full name with the trailing dot. Of the self node, what follows the first label is the MagicDNS suffix.
        pub name: String = "Name" (always);
        /// The owner; a profile must have been sent. Tagged nodes have a stand-in.
        pub user: UserId = "User" (always);
        /// Who shared the node in, if another than its owner.
        pub sharer: UserId = "Sharer";
        /// The WireGuard key.
        pub key: NodePublic = "Key" (always);
        /// When the key expires; `None` is never.
        pub key_expiry: Option<Timestamp> = "KeyExpiry";
        /// Tailnet-lock signature over the key.
        pub key_signature: Base64 = "KeySignature";
        /// The machine key; peers do without.
        pub machine: MachinePublic = "Machine";
        /// The disco key; zero means that there is no NAT traversal to this node.
        pub disco_key: DiscoPublic = "DiscoKey";
        /// Exactly the IPv4 `/32` and then the IPv6 `/128`: the Rust client takes nothing else.
        pub addresses: Vec<IpNet> = "Addresses" (always);
        /// What may be routed to the node: addresses and the routes it serves. `None` is "as `addresses`".
        pub allowed_ips: Option<Vec<IpNet>> = "AllowedIPs";
        /// Where the node can be reached.
        pub endpoints: Vec<SocketAddr> = "Endpoints";
        /// The home region; zero is unknown, and then no relay reaches the node.
        pub home_derp: DerpRegionId = "HomeDERP";
        /// What peers need of it; see [`Hostinfo`].
        pub hostinfo: Option<Arc<Hostinfo>> = "Hostinfo";
        /// When the node was registered.
        pub created: Option<Timestamp> = "Created";
        /// What the node's client understands.
        pub cap: CapabilityVersion = "Cap";
        /// Its tags, with `tag:`.
        pub tags: Vec<String> = "Tags";
        /// The routes it serves now: a subset of `allowed_ips` without `addresses`.
        pub primary_routes: Vec<IpNet> = "PrimaryRoutes";
        /// When it was last connected. Only while offline: with `online` the Rust client knows neither.
        pub last_seen: Option<Timestamp> = "LastSeen";
        /// Whether it is connected; `None` is unknown.
        pub online: Option<bool> = "Online";
        /// Whether the device is approved. A self node without is stuck in `NeedsMachineAuth`.
        pub machine_authorized: bool = "MachineAuthorized";
        /// Node attributes.
        pub cap_map: CapMap = "CapMap";
        /// Whether tailnet lock leaves the node unsigned, good for its peer API alone.
        pub unsigned_peer_api_only: bool = "UnsignedPeerAPIOnly";
        /// Id of the node in audit logs of its traffic.
        pub data_plane_audit_log_id: String = "DataPlaneAuditLogID";
        /// Whether the key has expired; then `endpoints` and `home_derp` are empty too.
        pub expired: bool = "Expired";
        /// The address that this peer knows the self node by, if not its own.
        pub self_node_v4_masq_addr_for_this_peer: Option<IpAddr> = "SelfNodeV4MasqAddrForThisPeer";
        /// The same for IPv6.
        pub self_node_v6_masq_addr_for_this_peer: Option<IpAddr> = "SelfNodeV6MasqAddrForThisPeer";
        /// Whether the peer speaks plain WireGuard, without disco and relay.
        pub is_wire_guard_only: bool = "IsWireGuardOnly";
        /// Whether the peer may not open connections to us.
        pub is_jailed: bool = "IsJailed";
        /// Name servers to use when a plain WireGuard peer is the exit node.
        pub exit_node_dns_resolvers: Vec<Resolver> = "ExitNodeDNSResolvers";
    }
}

wire_struct! {
    /// Fields of one known peer that changed; what is `None` or zero stays as it is.
    ///
    /// Nothing can be cleared this way but `endpoints` and `cap_map`.
    pub struct PeerChange {
        /// The peer. The client drops a whole batch over an id it does not know.
        pub node_id: NodeId = "NodeID" (always);
        /// Home region, not zero.
        pub derp_region: DerpRegionId = "DERPRegion";
        /// Capability version. Costs the client a full rebuild.
        pub cap: CapabilityVersion = "Cap";
        /// All attributes. Costs the client a full rebuild.
        pub cap_map: Option<CapMap> = "CapMap";
        /// All endpoints; an empty list says that there are none.
        pub endpoints: Option<Vec<SocketAddr>> = "Endpoints";
        /// Node key. Costs the client a full rebuild.
        pub key: Option<NodePublic> = "Key";
        /// Tailnet-lock signature. Costs the client a full rebuild.
        pub key_signature: Base64 = "KeySignature";
        /// Disco key. Costs the client a full rebuild.
        pub disco_key: Option<DiscoPublic> = "DiscoKey";
        /// Whether the peer is connected.
        pub online: Option<bool> = "Online";
        /// When the peer was last connected.
        pub last_seen: Option<Timestamp> = "LastSeen";
        /// When the key expires. Costs the client a full rebuild.
        pub key_expiry: Option<Timestamp> = "KeyExpiry";
    }
}

impl PeerChange {
    /// Whether the patch sets only what a client applies in place: region, endpoints, online, last seen.
    ///
    /// Source: tailscale `types/netmap/nodemut.go`, `NodeMutationsFromPatch`.
    pub fn is_fast(&self) -> bool {
        self.node_id != NodeId(0)
            && self.cap == CapabilityVersion(0)
            && self.cap_map.is_none()
            && self.key.is_none()
            && self.key_signature.0.is_empty()
            && self.disco_key.is_none()
            && self.key_expiry.is_none()
    }
}
