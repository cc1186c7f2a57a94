//! What is different between two snapshots, for one viewer or for a whole class of them.

use std::collections::BTreeSet;

use mesh_model::{Node, NodeId, Timestamp, Tombstone, UserId};
use mesh_policy::ClassId;
use mesh_state::{ChangeSet, Snapshot};
use mesh_wire as wire;
use roaring::RoaringBitmap;

use crate::MapContext;
use crate::peers::{ChangedPeer, Comparisons, PeersDelta};
use crate::to_wire::{
    PacketFilters, filter_delta, no_filter, peer_aspect, self_node, ssh_delta, tagged_devices,
    user_profile,
};

/// The way from one snapshot to a later one, in one context.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// What was told.
    pub from: &'a Snapshot,
    /// What is to be told.
    pub to: &'a Snapshot,
    /// What may differ between the two.
    pub changes: &'a ChangeSet,
    /// The same before and after.
    pub context: &'a MapContext,
}

/// What a viewer is to be told of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// What is different for it; that may be nothing.
    Differences(Differences),
    /// Everything again ([`crate::full`], after [`crate::withdrawal`]): too much of its own situation changed.
    Everything,
    /// That it is gone, by this message; then its stream ends. The message is absent if the node goes on
    /// under another key, whose stream has or will have its own netmap.
    Gone(Option<Box<wire::MapResponse>>),
}

/// What is different for a viewer, told in the order of the fields.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Differences {
    /// Its packet filters. They go first, or into the first message on its peers: who comes is let in at once.
    pub filters: PacketFilters,
    /// With whom it shares what it is told of its peers, which is [`Step::peers`] of any viewer of the group, without
    /// what that says of the viewer itself. `None` if that is nothing for certain.
    pub peers: Option<Group>,
    /// Its SSH rules and its own node. They make clients rebuild their netmap, so they go by themselves, and last:
    /// the netmap that clients keep for when the next key runs out then holds everything.
    pub config: Option<Box<wire::MapResponse>>,
}

/// Viewers that are told the same of their peers: those that went from one class to another, or stayed in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group {
    /// Their class before, `None` for nodes that policy did not know yet.
    from: Option<ClassId>,
    /// Their class after.
    to: Option<ClassId>,
    /// Whether they may see others than before.
    has_moved: bool,
}

impl Step<'_> {
    /// Decides what a viewer is told.
    pub fn tell(self, viewer: NodeId) -> Told {
        let Some(old) = self.from.tailnet.node(viewer) else { return Told::Everything };
        let Some(new) = self.to.tailnet.node(viewer) else {
            let last = farewell(old, self.from, self.to, self.context);
            return Told::Gone(Some(Box::new(last)));
        };
        if old.node_key != new.node_key {
            return Told::Gone(None);
        }
        let expired = new.is_expired(self.to.at);
        if old.is_expired(self.from.at) != expired {
            return Told::Everything;
        }
        let mut differences = Differences::default();
        if !expired {
            differences.filters = self.filters(new);
            differences.peers = self.group(viewer);
        }
        differences.config = Some(Box::new(self.config(old, new))).filter(|own| has_content(own));
        Told::Differences(differences)
    }

    /// What the group of a viewer is told of its peers. All groups of the step share `known`.
    pub fn peers(self, viewer: NodeId, known: &Comparisons) -> PeersDelta {
        let (saw, sees) = (self.from.policy.sight(viewer), self.to.policy.sight(viewer));
        let mut delta = PeersDelta::default();
        let mut owners = BTreeSet::new();
        for id in self.touched(viewer).into_iter().map(NodeId) {
            // Most of what changed is seen by few.
            let old = saw.filter(|sight| sight.sees(id)).and_then(|_| self.from.tailnet.node(id));
            let new = sees.filter(|sight| sight.sees(id)).and_then(|_| self.to.tailnet.node(id));
            match (old, new) {
                (None, Some(new)) => {
                    owners.insert(new.owner.user());
                    let aspect = peer_aspect(self.to, viewer, id);
                    delta.changed.push(ChangedPeer { id, aspect, held_back: None });
                }
                (Some(old), Some(new)) => {
                    if old.owner.user() != new.owner.user() {
                        owners.insert(new.owner.user());
                    }
                    let aspects = [self.from, self.to].map(|at| peer_aspect(at, viewer, id));
                    if aspects[0] != aspects[1] || self.changes.nodes.contains(id.0) {
                        delta.add(&known.get_or_make(self, old, new, aspects));
                    }
                }
                (Some(_), None) => delta.removed.push(wire::NodeId(id.0.into())),
                (None, None) => {}
            }
        }
        let profile = |user: &UserId| user_profile(&self.to.tailnet, *user);
        let users = self.known_users(viewer);
        delta.owners = owners.difference(&users).map(profile).collect();
        delta.profiles = users.iter().map(profile).collect();
        delta
    }

    /// With whom a viewer shares what it is told of its peers.
    fn group(self, viewer: NodeId) -> Option<Group> {
        let (changes, policy) = (self.changes, &self.changes.policy);
        let has_moved = self.has_moved(viewer);
        let sets = [&changes.nodes, &policy.moved, &policy.routers];
        let others = |set: &RoaringBitmap| set.len() > u64::from(set.contains(viewer.0));
        if !has_moved && changes.users.is_empty() && !sets.into_iter().any(others) {
            return None;
        }
        let (from, to) = (self.from.policy.class_of(viewer), self.to.policy.class_of(viewer));
        Some(Group { from, to, has_moved })
    }

    /// Whether the viewer may see others than before.
    fn has_moved(self, viewer: NodeId) -> bool {
        self.changes.policy.moved.contains(viewer.0)
    }

    fn filters(self, new: &Node) -> PacketFilters {
        if self.changes.policy.filters.contains(new.id.0) {
            filter_delta(&self.from.policy, &self.to.policy, new)
        } else {
            PacketFilters::new()
        }
    }

    /// The nodes that the viewer may see otherwise than before, among them some that it does not see. That of all its
    /// peers only a viewer's is asked that moved: for any other the work is a matter of what changed.
    fn touched(self, viewer: NodeId) -> RoaringBitmap {
        let (from, to) = (&self.from.policy, &self.to.policy);
        let policy = &self.changes.policy;
        let mut touched = &self.changes.nodes | &policy.moved | &policy.routers;
        if self.has_moved(viewer) {
            let (before, after) = (from.peers_of_class(viewer), to.peers_of_class(viewer));
            if from.hides_ipv4(viewer) == to.hides_ipv4(viewer) {
                touched |= (before ^ after) | to.routers();
            } else {
                touched |= after | before;
            }
        }
        touched
    }

    /// Changed users that the group of a viewer knows as owners of its peers.
    fn known_users(self, viewer: NodeId) -> BTreeSet<UserId> {
        let Some(sight) = self.to.policy.sight(viewer) else { return BTreeSet::new() };
        let is_known =
            |user: &&UserId| self.to.tailnet.nodes_of_user(**user).any(|node| sight.sees(node.id));
        self.changes.users.iter().filter(is_known).copied().collect()
    }

    /// What the viewer is told of itself.
    fn config(self, old: &Node, new: &Node) -> wire::MapResponse {
        let changes = self.changes;
        let is_touched =
            changes.key_ran_out || changes.nodes.contains(new.id.0) || self.has_moved(new.id);
        let (user, expired) = (new.owner.user(), new.is_expired(self.to.at));
        let has_new_profile = old.owner.user() != user || changes.users.contains(&user);
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
        if !self.changes.policy.ssh.contains(new.id.0) {
            return None;
        }
        ssh_delta(&self.from.policy, &self.to.policy, new)
    }
}

pub(crate) fn has_content(message: &wire::MapResponse) -> bool {
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
