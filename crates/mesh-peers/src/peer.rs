//! One peer, as small as it can be kept: a tailnet may have hundreds of thousands.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use mesh_keys::{DiscoPublic, MachinePublic, NodePublic};
use mesh_wire::{
    Base64, CapMap, CapabilityVersion, DerpRegionId, Hostinfo, Node, NodeId, PeerChange, Resolver,
    UserId,
};

use crate::intern::Interner;

/// A peer. What [`Node`] says of it is all here; what is seldom asked for takes little room.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// Unique for ever in the life of the tailnet.
    pub id: NodeId,
    /// Unique and opaque.
    pub stable_id: Arc<str>,
    /// Full name with the trailing dot.
    pub name: Arc<str>,
    /// The owner.
    pub user: UserId,
    /// Who shared the node in, if another than its owner.
    pub sharer: UserId,
    /// The WireGuard key.
    pub key: NodePublic,
    /// The machine key.
    pub machine: MachinePublic,
    /// The disco key; zero means that there is no NAT traversal to this peer.
    pub disco_key: DiscoPublic,
    /// When the key expires; `None` is never.
    pub key_expiry: Option<Timestamp>,
    /// The peer's own addresses.
    pub addresses: Arc<[IpNet]>,
    /// What is routed to the peer, its own addresses included.
    pub allowed_ips: Arc<[IpNet]>,
    /// Where the peer can be reached.
    pub endpoints: Box<[SocketAddr]>,
    /// The home region; zero is unknown.
    pub home_derp: DerpRegionId,
    /// What the peer's client understands.
    pub cap: CapabilityVersion,
    /// Its tags, with `tag:`.
    pub tags: Arc<Vec<String>>,
    /// Node attributes.
    pub cap_map: Arc<CapMap>,
    /// When the node was registered.
    pub created: Option<Timestamp>,
    /// When it was last connected.
    pub last_seen: Option<Timestamp>,
    /// Whether it is connected; `None` is unknown.
    pub online: Option<bool>,
    /// Whether the key has expired.
    pub expired: bool,
    /// Whether the device is approved.
    pub machine_authorized: bool,
    /// Whether the peer may not open connections to us.
    pub is_jailed: bool,
    /// JSON of [`Hostinfo`], which is large and seldom asked for.
    hostinfo: Option<Box<str>>,
    rare: Option<Box<Rare>>,
}

/// What hardly a peer has.
#[derive(Debug, Clone, Default, PartialEq)]
struct Rare {
    key_signature: Base64,
    primary_routes: Vec<IpNet>,
    data_plane_audit_log_id: String,
    unsigned_peer_api_only: bool,
    self_node_v4_masq_addr_for_this_peer: Option<IpAddr>,
    self_node_v6_masq_addr_for_this_peer: Option<IpAddr>,
    is_wire_guard_only: bool,
    exit_node_dns_resolvers: Vec<Resolver>,
}

/// What of a peer has changed, as far as somebody must act on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changed {
    /// The WireGuard key: sessions with the old one are void.
    pub key: bool,
    /// The disco key: the peer was started anew.
    pub disco_key: bool,
    /// Where it can be reached directly.
    pub endpoints: bool,
    /// Its home region.
    pub home_derp: bool,
    /// Its addresses, or what is routed to it.
    pub routes: bool,
    /// Whether it is connected.
    pub online: bool,
}

/// What peers have in common.
#[derive(Debug, Default)]
pub(crate) struct Commons {
    tags: Interner<Vec<String>>,
    cap_maps: Interner<CapMap>,
    no_tags: Arc<Vec<String>>,
    no_cap_map: Arc<CapMap>,
}

impl Commons {
    fn tags(&mut self, tags: Vec<String>) -> Arc<Vec<String>> {
        if tags.is_empty() {
            return Arc::clone(&self.no_tags);
        }
        let text = tags.join(",");
        self.tags.get_or_insert(&text, || tags)
    }

    fn cap_map(&mut self, cap_map: CapMap) -> Arc<CapMap> {
        if cap_map.is_empty() {
            return Arc::clone(&self.no_cap_map);
        }
        let text = json(&cap_map);
        self.cap_maps.get_or_insert(&text, || cap_map)
    }
}

impl Peer {
    pub(crate) fn new(node: Node, commons: &mut Commons) -> Self {
        let addresses: Arc<[IpNet]> = node.addresses.into();
        let allowed_ips = node.allowed_ips.filter(|_| !node.unsigned_peer_api_only);
        let more = allowed_ips.filter(|allowed_ips| **allowed_ips != *addresses);
        let allowed_ips = more.map_or_else(|| Arc::clone(&addresses), Arc::from);
        let rare = Rare {
            key_signature: node.key_signature,
            primary_routes: node.primary_routes,
            data_plane_audit_log_id: node.data_plane_audit_log_id,
            unsigned_peer_api_only: node.unsigned_peer_api_only,
            self_node_v4_masq_addr_for_this_peer: node.self_node_v4_masq_addr_for_this_peer,
            self_node_v6_masq_addr_for_this_peer: node.self_node_v6_masq_addr_for_this_peer,
            is_wire_guard_only: node.is_wire_guard_only,
            exit_node_dns_resolvers: node.exit_node_dns_resolvers,
        };
        Self {
            id: node.id,
            stable_id: node.stable_id.into(),
            name: node.name.into(),
            user: node.user,
            sharer: node.sharer,
            key: node.key,
            machine: node.machine,
            disco_key: node.disco_key,
            key_expiry: node.key_expiry,
            addresses,
            allowed_ips,
            endpoints: node.endpoints.into_boxed_slice(),
            home_derp: node.home_derp,
            cap: node.cap,
            tags: commons.tags(node.tags),
            cap_map: commons.cap_map(node.cap_map),
            created: node.created,
            last_seen: node.last_seen,
            online: node.online,
            expired: node.expired,
            machine_authorized: node.machine_authorized,
            is_jailed: node.is_jailed,
            hostinfo: node.hostinfo.map(|hostinfo| json(&*hostinfo).into()),
            rare: (rare != Rare::default()).then(|| Box::new(rare)),
        }
    }

    /// As which address the peer knows this node instead of its own one of that family, if it does.
    pub fn masquerade(&self, is_ipv4: bool) -> Option<IpAddr> {
        let rare = self.rare.as_ref()?;
        if is_ipv4 {
            rare.self_node_v4_masq_addr_for_this_peer
        } else {
            rare.self_node_v6_masq_addr_for_this_peer
        }
    }

    /// What the peer says of itself.
    pub fn hostinfo(&self) -> Option<Hostinfo> {
        let json = self.hostinfo.as_deref()?;
        Some(serde_json::from_str(json).expect("invariant: it was written from a hostinfo"))
    }

    /// Whether the peer speaks plain WireGuard, without disco and relay.
    pub fn is_wire_guard_only(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.is_wire_guard_only)
    }

    /// The peer as the control server tells it, with what is routed to it written out.
    pub fn to_node(&self) -> Node {
        let rare = self.rare.as_deref().cloned().unwrap_or_default();
        Node {
            id: self.id,
            stable_id: (*self.stable_id).to_owned(),
            name: (*self.name).to_owned(),
            user: self.user,
            sharer: self.sharer,
            key: self.key,
            key_expiry: self.key_expiry,
            key_signature: rare.key_signature,
            machine: self.machine,
            disco_key: self.disco_key,
            addresses: self.addresses.to_vec(),
            allowed_ips: Some(self.allowed_ips.to_vec()),
            endpoints: self.endpoints.to_vec(),
            home_derp: self.home_derp,
            hostinfo: self.hostinfo().map(Arc::new),
            created: self.created,
            cap: self.cap,
            tags: (*self.tags).clone(),
            primary_routes: rare.primary_routes,
            last_seen: self.last_seen,
            online: self.online,
            machine_authorized: self.machine_authorized,
            cap_map: (*self.cap_map).clone(),
            unsigned_peer_api_only: rare.unsigned_peer_api_only,
            data_plane_audit_log_id: rare.data_plane_audit_log_id,
            expired: self.expired,
            self_node_v4_masq_addr_for_this_peer: rare.self_node_v4_masq_addr_for_this_peer,
            self_node_v6_masq_addr_for_this_peer: rare.self_node_v6_masq_addr_for_this_peer,
            is_wire_guard_only: rare.is_wire_guard_only,
            is_jailed: self.is_jailed,
            exit_node_dns_resolvers: rare.exit_node_dns_resolvers,
        }
    }

    /// The peer with the fields that a patch sets.
    pub(crate) fn patched(&self, patch: PeerChange, commons: &mut Commons) -> Self {
        let mut peer = self.clone();
        if patch.derp_region.0 != 0 {
            peer.home_derp = patch.derp_region;
        }
        if patch.cap.0 != 0 {
            peer.cap = patch.cap;
        }
        if !patch.key_signature.0.is_empty() {
            peer.rare.get_or_insert_default().key_signature = patch.key_signature;
        }
        if let Some(cap_map) = patch.cap_map {
            peer.cap_map = commons.cap_map(cap_map);
        }
        if let Some(endpoints) = patch.endpoints {
            peer.endpoints = endpoints.into_boxed_slice();
        }
        peer.key = patch.key.unwrap_or(peer.key);
        peer.disco_key = patch.disco_key.unwrap_or(peer.disco_key);
        peer.online = patch.online.or(peer.online);
        peer.last_seen = patch.last_seen.or(peer.last_seen);
        peer.key_expiry = patch.key_expiry.or(peer.key_expiry);
        peer
    }

    /// What differs from an earlier state of the peer; `None` if nothing does.
    pub(crate) fn changed_since(&self, old: &Self) -> Option<Changed> {
        (self != old).then(|| Changed {
            key: self.key != old.key,
            disco_key: self.disco_key != old.disco_key,
            endpoints: self.endpoints != old.endpoints,
            home_derp: self.home_derp != old.home_derp,
            routes: self.addresses != old.addresses || self.allowed_ips != old.allowed_ips,
            online: self.online != old.online,
        })
    }

    /// All that is routed to the peer, each prefix once: its own addresses first.
    pub(crate) fn routed(&self) -> impl Iterator<Item = IpNet> + '_ {
        let subnets = self.allowed_ips.iter().filter(|prefix| !self.addresses.contains(prefix));
        self.addresses.iter().chain(subnets).copied()
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("invariant: wire types can be written")
}
