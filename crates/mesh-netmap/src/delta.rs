//! What is different between two snapshots, for one viewer or for a whole class of them.

use std::collections::BTreeSet;

use mesh_model::{Node, NodeId, Timestamp, Tombstone, UserId};
use mesh_policy::{ClassId, CompiledPolicy};
use mesh_state::{ChangeSet, Snapshot};
use mesh_wire as wire;
use roaring::RoaringBitmap;

use crate::MapContext;
use crate::to_wire::{
    PacketFilters, filter_delta, no_filter, peer, peer_as, peer_view, self_node, ssh_delta,
    tagged_devices, user_profile,
};

/// What a viewer is to be told of the way from one snapshot to another.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// What is different for it; that may be nothing.
    Differences(Differences),
    /// Everything again ([`crate::full_again`]): too much of its own situation changed.
    Everything,
    /// That it is gone, by this message; then its stream ends. The message is absent if the node goes on
    /// under another key, whose stream has or will have its own netmap.
    Gone(Option<Box<wire::MapResponse>>),
}

/// What is different for a viewer, told in the order of the fields.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Differences {
    /// Its packet filters; and its peers, if no other viewer is told the same of them.
    pub own: Vec<wire::MapResponse>,
    /// What every viewer of this class is told of its peers: [`peers_delta`] of any viewer to whom this is said.
    pub shared: Option<ClassId>,
    /// Its SSH rules and its own node. They make clients rebuild their netmap, so they go by themselves, and last:
    /// the netmap that clients keep for when the next key runs out then holds everything.
    pub config: Option<Box<wire::MapResponse>>,
}

/// Decides what a viewer is told between two snapshots.
pub fn tell(
    from: &Snapshot,
    to: &Snapshot,
    changes: &ChangeSet,
    viewer: NodeId,
    context: &MapContext,
) -> Told {
    let Some(old) = from.tailnet.node(viewer) else { return Told::Everything };
    let Some(new) = to.tailnet.node(viewer) else {
        return Told::Gone(Some(Box::new(farewell(old, from, to, context))));
    };
    if old.node_key != new.node_key {
        return Told::Gone(None);
    }
    let expired = new.is_expired(to.at);
    if old.is_expired(from.at) != expired {
        return Told::Everything;
    }
    let way = Way { from, to, changes, viewer, context };
    let mut differences = Differences::default();
    if !expired {
        way.tell_peers(new, &mut differences);
    }
    differences.config = Some(Box::new(way.config(old, new))).filter(|config| has_content(config));
    Told::Differences(differences)
}

/// What a viewer is told of its peers between two snapshots. Another viewer of its class is told the same, unless it is
/// itself among what changed.
///
/// No message, one, or two in order. Clients apply them in place, unless a field has changed that they cannot.
pub fn peers_delta(
    from: &Snapshot,
    to: &Snapshot,
    changes: &ChangeSet,
    viewer: NodeId,
    context: &MapContext,
) -> Vec<wire::MapResponse> {
    Way { from, to, changes, viewer, context }.peers()
}

/// The way from one snapshot to another, for one viewer.
#[derive(Debug, Clone, Copy)]
struct Way<'a> {
    from: &'a Snapshot,
    to: &'a Snapshot,
    changes: &'a ChangeSet,
    viewer: NodeId,
    context: &'a MapContext,
}

impl Way<'_> {
    /// Tells of peers and packet filters, to a viewer whose key is good.
    fn tell_peers(self, new: &Node, differences: &mut Differences) {
        let filters = self.filters(new);
        if self.is_alone(new) {
            differences.own = self.peers();
        } else if self.is_concerned() {
            differences.shared = self.to.policy.class_of(self.viewer);
        }
        if filters.is_empty() {
            return;
        }
        // Who comes is let in at once.
        match differences.own.first_mut() {
            Some(message) => message.packet_filters = filters,
            None => differences.own.push(wire::MapResponse {
                packet_filters: filters,
                ..wire::MapResponse::default()
            }),
        }
    }

    /// Whether no other viewer of its class is told the same of its peers: it is in another class than before, or one of
    /// those that others are told of.
    fn is_alone(self, new: &Node) -> bool {
        self.has_moved()
            || self.changes.nodes.contains(self.viewer.0)
            || self.changes.users.contains(&new.owner.user())
    }

    /// Whether the viewer may see others than before.
    fn has_moved(self) -> bool {
        let policy = &self.changes.policy;
        policy.recompiled || policy.moved.contains(self.viewer.0)
    }

    /// Whether a viewer that has not moved sees any of what changed. Costs little beside making the messages, and most
    /// changes concern few viewers.
    fn is_concerned(self) -> bool {
        let policy = &self.changes.policy;
        let mut nodes = [&self.changes.nodes, &policy.moved, &policy.routers].into_iter().flatten();
        !self.changes.users.is_empty() || nodes.any(|id| self.is_seen(NodeId(id)))
    }

    fn is_seen(self, id: NodeId) -> bool {
        self.from.policy.sees(self.viewer, id) || self.to.policy.sees(self.viewer, id)
    }

    fn filters(self, new: &Node) -> PacketFilters {
        let (from, to) = (&self.from.policy, &self.to.policy);
        if CompiledPolicy::filter_may_differ(from, to, &self.changes.policy, self.viewer) {
            filter_delta(from, to, new)
        } else {
            PacketFilters::new()
        }
    }

    fn peers(self) -> Vec<wire::MapResponse> {
        let mut deltas = PeerDeltas::default();
        let mut users = self.users();
        for id in self.touched().into_iter().map(NodeId) {
            let old = self.from.tailnet.node(id).filter(|_| self.from.policy.sees(self.viewer, id));
            let new = self.to.tailnet.node(id).filter(|_| self.to.policy.sees(self.viewer, id));
            match (old, new) {
                (None, Some(new)) => {
                    users.insert(new.owner.user());
                    let peer = peer(self.to, self.viewer, new, self.context);
                    deltas.first.peers_changed.push(peer);
                }
                (Some(old), Some(new)) => {
                    if old.owner.user() != new.owner.user() {
                        users.insert(new.owner.user());
                    }
                    self.compare(old, new, &mut deltas);
                }
                (Some(_), None) => deltas.first.peers_removed.push(wire::NodeId(id.0.into())),
                (None, None) => {}
            }
        }
        let profile = |user| user_profile(&self.to.tailnet, user);
        deltas.first.user_profiles = users.into_iter().map(profile).collect();
        [deltas.first, deltas.second].into_iter().filter(has_content).collect()
    }

    /// Tells what is different about a peer that stays.
    fn compare(self, old: &Node, new: &Node, deltas: &mut PeerDeltas) {
        let (id, viewer) = (new.id, self.viewer);
        let (was, is) = (peer_view(self.from, viewer, id), peer_view(self.to, viewer, id));
        if was != is || self.changes.nodes.contains(id.0) {
            let old = peer_as(old, was, self.from.at, self.context);
            deltas.add_change(&old, peer_as(new, is, self.to.at, self.context));
        }
    }

    /// The nodes that the viewer may see otherwise than before, among them some that it does not see. That of all its
    /// peers only a viewer's is asked that moved: for any other the work is a matter of what changed.
    fn touched(self) -> RoaringBitmap {
        let (from, to) = (&self.from.policy, &self.to.policy);
        let policy = &self.changes.policy;
        let mut touched = &self.changes.nodes | &policy.moved | &policy.routers;
        if self.has_moved() {
            let (before, after) = (from.peers(self.viewer), to.peers(self.viewer));
            if from.hides_ipv4(self.viewer) == to.hides_ipv4(self.viewer) {
                touched |= (before ^ after) | to.routers();
            } else {
                touched |= after | before;
            }
        }
        touched
    }

    /// Changed users that the viewer knows by their profiles.
    fn users(self) -> BTreeSet<UserId> {
        let (policy, tailnet) = (&self.to.policy, &self.to.tailnet);
        let is_known = |user: &&UserId| {
            tailnet
                .nodes_of_user(**user)
                .any(|node| node.id == self.viewer || policy.sees(self.viewer, node.id))
        };
        self.changes.users.iter().filter(is_known).copied().collect()
    }

    /// What the viewer is told of itself.
    fn config(self, old: &Node, new: &Node) -> wire::MapResponse {
        let changes = self.changes;
        let is_touched =
            changes.key_ran_out || changes.nodes.contains(self.viewer.0) || self.has_moved();
        let (user, expired) = (new.owner.user(), new.is_expired(self.to.at));
        // The owner of before is told of with the peers, but not while there are none.
        let has_new_profile = old.owner.user() != user || expired && changes.users.contains(&user);
        let profile = has_new_profile.then(|| user_profile(&self.to.tailnet, user));
        wire::MapResponse {
            node: if is_touched { self.own_node(old, new) } else { None },
            ssh_policy: if expired { None } else { self.ssh(new) },
            user_profiles: profile.into_iter().collect(),
            ..wire::MapResponse::default()
        }
    }

    fn own_node(self, old: &Node, new: &Node) -> Option<Box<wire::Node>> {
        let is = self_node(self.to, new, self.context);
        let differs = || is != self_node(self.from, old, self.context);
        (self.changes.key_ran_out || differs()).then(|| Box::new(is))
    }

    fn ssh(self, new: &Node) -> Option<wire::SshPolicy> {
        let (from, to) = (&self.from.policy, &self.to.policy);
        if !CompiledPolicy::ssh_may_differ(from, to, &self.changes.policy, self.viewer) {
            return None;
        }
        ssh_delta(from, to, new)
    }
}

fn has_content(message: &wire::MapResponse) -> bool {
    *message != wire::MapResponse::default()
}

/// The last message to a deleted node: its own key, expired. Its client then asks for a login, where a
/// refusal of its next request would leave it believing that all is well.
fn farewell(
    node: &Node,
    from: &Snapshot,
    to: &Snapshot,
    context: &MapContext,
) -> wire::MapResponse {
    let expired = Node { expires_at: Some(node.created_at.min(to.at)), ..node.clone() };
    wire::MapResponse {
        node: Some(Box::new(self_node(from, &expired, context))),
        ..wire::MapResponse::default()
    }
}

/// All that the client of a deleted node is told when it comes back: that its key has expired. The relays are
/// there all the same: a client that was told of none does not connect to its home again after the next login.
pub fn deleted_node(
    tombstone: &Tombstone,
    now: Timestamp,
    context: &MapContext,
) -> wire::MapResponse {
    let node = wire::Node {
        id: wire::NodeId(1),
        stable_id: "deleted".to_owned(),
        name: format!("deleted.{}.", context.base_domain),
        user: wire::UserId(UserId::TAGGED_DEVICES.0),
        key: tombstone.node_key,
        key_expiry: Some(tombstone.deleted_at),
        machine: tombstone.machine_key,
        machine_authorized: true,
        expired: true,
        ..wire::Node::default()
    };
    wire::MapResponse {
        node: Some(Box::new(node)),
        derp_map: Some(context.derp_map.clone()),
        dns_config: Some(context.dns.clone()),
        packet_filters: no_filter(),
        user_profiles: vec![tagged_devices()],
        domain: context.base_domain.clone(),
        control_time: Some(now),
        ..wire::MapResponse::default()
    }
}

/// What is told of peers. A message names a node once, so that one which needs both comes whole in the first
/// message and with its fields in the second.
#[derive(Debug, Default)]
struct PeerDeltas {
    first: wire::MapResponse,
    second: wire::MapResponse,
}

impl PeerDeltas {
    /// Adds what is different about a peer: single fields if clients can apply those in place, else the whole node.
    ///
    /// A whole node that differs only in what patches can say is made a patch of by the client, which loses every
    /// field that becomes empty on the way. So the fields that have a patch of their own stay out of it.
    ///
    /// Source: tailscale `control/controlclient/map.go`, `peerChangeDiff`.
    fn add_change(&mut self, old: &wire::Node, new: wire::Node) {
        let slow = wire::Node {
            endpoints: old.endpoints.clone(),
            home_derp: old.home_derp,
            online: old.online,
            last_seen: old.last_seen,
            ..new.clone()
        };
        if differs_beyond_patches(old, &slow) {
            self.first.peers_changed.push(new);
        } else if slow == *old {
            add_fields(&mut self.first, old, new);
        } else {
            self.first.peers_changed.push(slow);
            add_fields(&mut self.second, old, new);
        }
    }
}

/// Whether two versions of a node differ in more than fields of a [`wire::PeerChange`].
fn differs_beyond_patches(old: &wire::Node, slow: &wire::Node) -> bool {
    let rest = wire::Node {
        key: old.key,
        key_expiry: old.key_expiry,
        key_signature: old.key_signature.clone(),
        disco_key: old.disco_key,
        cap: old.cap,
        cap_map: old.cap_map.clone(),
        ..slow.clone()
    };
    rest != *old
}

/// Adds what is different in the fields that clients patch in place. A home region does not become none but with
/// the expiry of the key, which is beyond patches.
fn add_fields(message: &mut wire::MapResponse, old: &wire::Node, new: wire::Node) {
    let nothing = wire::PeerChange { node_id: new.id, ..wire::PeerChange::default() };
    let patch = wire::PeerChange {
        derp_region: Some(new.home_derp).filter(|home| *home != old.home_derp).unwrap_or_default(),
        endpoints: (old.endpoints != new.endpoints).then_some(new.endpoints),
        online: new.online.filter(|_| old.online != new.online),
        last_seen: new.last_seen.filter(|_| old.last_seen != new.last_seen),
        ..nothing.clone()
    };
    if patch != nothing {
        message.peers_changed_patch.push(patch);
    } else if old.last_seen != new.last_seen {
        // Only of a node that connects while its key has expired: it stays offline, and nothing else is told.
        message.peer_seen_change.insert(new.id, false);
    }
}
