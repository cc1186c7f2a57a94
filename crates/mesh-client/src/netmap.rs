//! What the messages of a map stream add up to.
//!
//! [`Netmap::apply`] follows the protocol as it is meant; [`Netmap::apply_as_stock`] follows the Go client, which
//! takes short cuts that lose some changes. A server is right when both end with the full netmap. Nothing here
//! waits or reads a clock. That the messages obey the rules of a session (`mesh_wire::SessionRules`) is taken
//! for granted: what breaks them is passed over as clients do.
//!
//! Source: tailscale `control/controlclient/map.go`.

mod stock;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use mesh_wire::{
    DerpMap, DisplayMessage, DnsConfig, FilterRule, MapResponse, Node, NodeId, PeerChange,
    SshPolicy, TkaInfo, UserId, UserProfile, is_incremental,
};

/// The packet filter that the older field `PacketFilter` sets.
const BASE_FILTER: &str = "base";
/// The name under which `null` clears all packet filters, or all display messages.
const ALL: &str = "*";

/// The state of one map session: everything that lasts from one message to the next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Netmap {
    /// The node itself; `None` before the first message.
    pub node: Option<Box<Node>>,
    /// All peers. `AllowedIPs`, where the server left it out, is `Addresses`.
    pub peers: BTreeMap<NodeId, Node>,
    /// All profiles ever sent, also those that no node names any more.
    pub user_profiles: BTreeMap<UserId, UserProfile>,
    /// The relays.
    pub derp_map: Option<Arc<DerpMap>>,
    /// Packet filters by name; together they are the filter.
    pub packet_filters: BTreeMap<String, Vec<FilterRule>>,
    /// DNS.
    pub dns_config: Option<DnsConfig>,
    /// SSH rules.
    pub ssh_policy: Option<SshPolicy>,
    /// Name of the tailnet.
    pub domain: String,
    /// Id of the tailnet in audit logs of its traffic.
    pub domain_data_plane_audit_log_id: String,
    /// Whether the node reports its listening ports.
    pub collect_services: bool,
    /// What ails the node, in the form for older clients.
    pub health: Vec<String>,
    /// What ails the node, by id.
    pub display_messages: BTreeMap<String, DisplayMessage>,
    /// State of tailnet lock.
    pub tka_info: Option<TkaInfo>,
}

/// What a message cost a stock client from capability version 141 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It was applied in place.
    InPlace,
    /// The client built its netmap anew, at a cost that grows with the tailnet.
    Rebuilt,
}

impl Netmap {
    /// Applies the next message of the session. `now` becomes the last-seen time of peers that are "seen now".
    ///
    /// A keep-alive changes nothing. Order within a message: the full list of peers, or else removed, changed,
    /// seen, online, patched.
    pub fn apply(&mut self, message: MapResponse, now: Timestamp) {
        if message.keep_alive {
            return;
        }
        self.apply_filters(message.packet_filter, message.packet_filters);
        self.apply_display_messages(message.display_messages);
        if let Some(derp_map) = message.derp_map {
            self.derp_map = Some(merge_derp_map(self.derp_map.take(), derp_map));
        }
        let profiles = message.user_profiles.into_iter();
        self.user_profiles.extend(profiles.map(|profile| (profile.id, profile)));
        replace_if_some(&mut self.node, message.node.map(|node| Box::new(upgraded(*node))));
        replace_if_some(&mut self.dns_config, message.dns_config);
        replace_if_some(&mut self.ssh_policy, message.ssh_policy);
        replace_if_some(&mut self.tka_info, message.tka_info);
        self.collect_services = message.collect_services.unwrap_or(self.collect_services);
        if let Some(health) = message.health {
            self.health = health;
        }
        replace_if_named(&mut self.domain, message.domain);
        let audit_log_id = message.domain_data_plane_audit_log_id;
        replace_if_named(&mut self.domain_data_plane_audit_log_id, audit_log_id);
        if message.peers.is_empty() {
            self.remove_and_upsert(&message.peers_removed, message.peers_changed);
            self.flip(&message.peer_seen_change, &message.online_change, now);
            self.patch(message.peers_changed_patch);
        } else {
            self.peers = message.peers.into_iter().map(upgraded).map(by_id).collect();
        }
    }

    /// Applies the next message of the session as stock Go clients do (1.103), and tells what it cost them.
    ///
    /// Such a client turns a changed peer that differs only in fields of [`PeerChange`] into a patch; with that
    /// it loses what a patch cannot say: that endpoints, home region, capability version, signature, last seen
    /// or online have become none. And it distrusts disco keys of peers that are offline.
    pub fn apply_as_stock(&mut self, mut message: MapResponse, now: Timestamp) -> Applied {
        let slow = stock::rewrite(&self.peers, &mut message);
        let in_place = !slow && self.node.is_some() && is_incremental(&message);
        self.apply(message, now);
        if in_place { Applied::InPlace } else { Applied::Rebuilt }
    }

    /// The netmap without what makes no difference to the node: profiles that no node names, packet filters and SSH
    /// policies without rules, the last-seen time of peers that are online.
    ///
    /// In this form the sum of all messages of a session equals the full netmap sent at once.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        let named = self.users();
        self.user_profiles.retain(|id, _| named.contains(id));
        self.packet_filters.retain(|_, rules| !rules.is_empty());
        self.ssh_policy.take_if(|policy| policy.rules.is_empty());
        for peer in self.peers.values_mut().filter(|peer| peer.online == Some(true)) {
            peer.last_seen = None;
        }
        self
    }

    /// The users that the nodes name.
    fn users(&self) -> BTreeSet<UserId> {
        let nodes = self.peers.values().chain(self.node.as_deref());
        nodes.flat_map(|node| [node.user, node.sharer]).collect()
    }

    fn apply_filters(
        &mut self,
        base: Option<Vec<FilterRule>>,
        named: BTreeMap<String, Option<Vec<FilterRule>>>,
    ) {
        if let Some(rules) = base {
            self.packet_filters.insert(BASE_FILTER.to_owned(), rules);
        }
        patch_named(&mut self.packet_filters, named);
    }

    fn apply_display_messages(&mut self, messages: BTreeMap<String, Option<DisplayMessage>>) {
        patch_named(&mut self.display_messages, messages);
    }

    fn remove_and_upsert(&mut self, removed: &[NodeId], changed: Vec<Node>) {
        for id in removed {
            self.peers.remove(id);
        }
        self.peers.extend(changed.into_iter().map(upgraded).map(by_id));
    }

    fn flip(
        &mut self,
        seen: &BTreeMap<NodeId, bool>,
        online: &BTreeMap<NodeId, bool>,
        now: Timestamp,
    ) {
        for (id, seen) in seen {
            if let Some(peer) = self.peers.get_mut(id) {
                peer.last_seen = seen.then_some(now);
            }
        }
        for (id, online) in online {
            if let Some(peer) = self.peers.get_mut(id) {
                peer.online = Some(*online);
            }
        }
    }

    fn patch(&mut self, patches: Vec<PeerChange>) {
        for patch in patches {
            if let Some(peer) = self.peers.get_mut(&patch.node_id) {
                patch_peer(peer, patch);
            }
        }
    }
}

fn by_id(node: Node) -> (NodeId, Node) {
    (node.id, node)
}

/// Writes out `AllowedIPs`, whose absence means `Addresses`; so it does whatever is said for a peer that tailnet
/// lock leaves unsigned.
fn upgraded(mut node: Node) -> Node {
    if node.allowed_ips.is_none() || node.unsigned_peer_api_only {
        node.allowed_ips = Some(node.addresses.clone());
    }
    node
}

fn patch_peer(peer: &mut Node, patch: PeerChange) {
    if patch.derp_region.0 != 0 {
        peer.home_derp = patch.derp_region;
    }
    if patch.cap.0 != 0 {
        peer.cap = patch.cap;
    }
    if !patch.key_signature.0.is_empty() {
        peer.key_signature = patch.key_signature;
    }
    peer.cap_map = patch.cap_map.unwrap_or_else(|| std::mem::take(&mut peer.cap_map));
    peer.endpoints = patch.endpoints.unwrap_or_else(|| std::mem::take(&mut peer.endpoints));
    peer.key = patch.key.unwrap_or(peer.key);
    peer.disco_key = patch.disco_key.unwrap_or(peer.disco_key);
    peer.online = patch.online.or(peer.online);
    peer.last_seen = patch.last_seen.or(peer.last_seen);
    peer.key_expiry = patch.key_expiry.or(peer.key_expiry);
}

/// What a DERP map leaves out stays as it was.
fn merge_derp_map(old: Option<Arc<DerpMap>>, new: Arc<DerpMap>) -> Arc<DerpMap> {
    let Some(old) = old else { return new };
    let mut merged = Arc::unwrap_or_clone(new);
    if merged.regions.is_none() {
        merged.regions.clone_from(&old.regions);
        merged.omit_default_regions = old.omit_default_regions;
    }
    match (&mut merged.home_params, &old.home_params) {
        (None, old) => merged.home_params.clone_from(old),
        (Some(new), Some(old)) if new.region_score.is_none() => {
            new.region_score.clone_from(&old.region_score);
        }
        (Some(_), _) => {}
    }
    Arc::new(merged)
}

/// Sets what has a value and deletes what has none; [`ALL`] without a value deletes everything before.
fn patch_named<T>(current: &mut BTreeMap<String, T>, mut patch: BTreeMap<String, Option<T>>) {
    if let Some(None) = patch.remove(ALL) {
        current.clear();
    }
    for (name, value) in patch {
        match value {
            Some(value) => current.insert(name, value),
            None => current.remove(&name),
        };
    }
}

fn replace_if_some<T>(current: &mut Option<T>, new: Option<T>) {
    if new.is_some() {
        *current = new;
    }
}

fn replace_if_named(current: &mut String, new: String) {
    if !new.is_empty() {
        *current = new;
    }
}

#[cfg(test)]
mod tests;
