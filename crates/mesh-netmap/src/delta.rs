//! What is different between two snapshots, for one viewer or for a whole class of them.

use std::collections::BTreeSet;

use mesh_model::{Node, NodeId, Timestamp, Tombstone, UserId};
use mesh_policy::{ClassId, PeerView};
use mesh_state::{ChangeSet, Snapshot};
use mesh_wire as wire;
use roaring::RoaringBitmap;

use crate::MapContext;
use crate::to_wire::{
    PacketFilters, filter_delta, no_filter, peer_as, peer_view, self_node, ssh_delta,
    tagged_devices, user_profile,
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

/// What a group of viewers is told of its peers. Each leaves out itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PeersDelta {
    /// Peers that went, by id.
    pub removed: Vec<wire::NodeId>,
    /// Peers that came or changed in more than a patch can say, by id.
    pub changed: Vec<ChangedPeer>,
    /// Peers that were not seen after all, by id.
    pub never_seen: Vec<wire::NodeId>,
    /// Fields of peers, by id. Those of peers in `changed` go in a second message, for a message names a node once.
    pub patches: Vec<wire::PeerChange>,
    /// Profiles that changed.
    pub profiles: Vec<wire::UserProfile>,
    /// Profiles that go with `changed`.
    pub owners: Vec<wire::UserProfile>,
}

/// A peer that came or changed.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangedPeer {
    /// Whom.
    pub id: NodeId,
    /// What viewers may know of it.
    pub view: PeerView,
    /// The node, if it is told otherwise than [`peer_as`] has it, to leave to patches what patches can say.
    pub held_back: Option<Box<wire::Node>>,
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

    /// What the group of a viewer is told of its peers.
    pub fn peers(self, viewer: NodeId) -> PeersDelta {
        let (from, to) = (&self.from.policy, &self.to.policy);
        let mut delta = PeersDelta::default();
        let mut owners = BTreeSet::new();
        for id in self.touched(viewer).into_iter().map(NodeId) {
            // Most of what changed is seen by few.
            let (saw, sees) = (from.does_class_see(viewer, id), to.does_class_see(viewer, id));
            let old = saw.then(|| self.from.tailnet.node(id)).flatten();
            let new = sees.then(|| self.to.tailnet.node(id)).flatten();
            match (old, new) {
                (None, Some(new)) => {
                    owners.insert(new.owner.user());
                    let view = peer_view(self.to, viewer, id);
                    delta.changed.push(ChangedPeer { id, view, held_back: None });
                }
                (Some(old), Some(new)) => {
                    if old.owner.user() != new.owner.user() {
                        owners.insert(new.owner.user());
                    }
                    self.compare(old, new, viewer, &mut delta);
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

    /// Tells what is different about a peer that stays.
    fn compare(self, old: &Node, new: &Node, viewer: NodeId, delta: &mut PeersDelta) {
        let id = new.id;
        let (was, is) = (peer_view(self.from, viewer, id), peer_view(self.to, viewer, id));
        if was != is || self.changes.nodes.contains(id.0) {
            let old = peer_as(old, was, self.from.at, self.context);
            let new = peer_as(new, is.clone(), self.to.at, self.context);
            delta.add_change(id, is, &old, new);
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
        let (policy, tailnet) = (&self.to.policy, &self.to.tailnet);
        let is_known = |user: &&UserId| {
            tailnet.nodes_of_user(**user).any(|node| policy.does_class_see(viewer, node.id))
        };
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

impl PeersDelta {
    /// Adds what is different about a peer: single fields if clients can apply those in place, else the whole node.
    ///
    /// A whole node that differs only in what patches can say is made a patch of by the client, which loses every
    /// field that becomes empty on the way. So the fields that have a patch of their own stay out of it.
    ///
    /// Source: tailscale `control/controlclient/map.go`, `peerChangeDiff`.
    fn add_change(&mut self, id: NodeId, view: PeerView, old: &wire::Node, new: wire::Node) {
        let slow = wire::Node {
            endpoints: old.endpoints.clone(),
            home_derp: old.home_derp,
            online: old.online,
            last_seen: old.last_seen,
            ..new.clone()
        };
        if differs_beyond_patches(old, &slow) {
            return self.changed.push(ChangedPeer { id, view, held_back: None });
        }
        if slow != *old {
            self.changed.push(ChangedPeer { id, view, held_back: Some(Box::new(slow)) });
        }
        self.add_fields(old, new);
    }

    /// Adds what is different in the fields that clients patch in place. A home region does not become none but with
    /// the expiry of the key, which is beyond patches.
    fn add_fields(&mut self, old: &wire::Node, new: wire::Node) {
        let nothing = wire::PeerChange { node_id: new.id, ..wire::PeerChange::default() };
        let patch = wire::PeerChange {
            derp_region: Some(new.home_derp)
                .filter(|home| *home != old.home_derp)
                .unwrap_or_default(),
            endpoints: (old.endpoints != new.endpoints).then_some(new.endpoints),
            online: new.online.filter(|_| old.online != new.online),
            last_seen: new.last_seen.filter(|_| old.last_seen != new.last_seen),
            ..nothing.clone()
        };
        if patch != nothing {
            self.patches.push(patch);
        } else if old.last_seen != new.last_seen {
            // Only of a node that connects while its key has expired: it stays offline, and nothing else is told.
            self.never_seen.push(new.id);
        }
    }

    /// Whether there is nothing to tell a viewer.
    pub fn is_empty_for(&self, viewer: NodeId) -> bool {
        let id = wire::NodeId(viewer.0.into());
        self.profiles.is_empty()
            && self.removed.iter().chain(&self.never_seen).all(|peer| *peer == id)
            && self.changed.iter().all(|peer| peer.id == viewer)
            && self.patches.iter().all(|patch| patch.node_id == id)
    }

    /// Whether it says anything of a node.
    pub fn names(&self, node: NodeId) -> bool {
        let id = wire::NodeId(node.0.into());
        let by_id = |list: &[wire::NodeId]| list.binary_search(&id).is_ok();
        by_id(&self.removed)
            || by_id(&self.never_seen)
            || self.has_changed(id)
            || self.patches.binary_search_by_key(&id, |patch| patch.node_id).is_ok()
    }

    /// All that is said to a viewer: no message, one, or two in order, the first with its packet filters.
    pub fn messages(
        &self,
        viewer: NodeId,
        packet_filters: PacketFilters,
        to: &Snapshot,
        context: &MapContext,
    ) -> Vec<wire::MapResponse> {
        let first = if self.is_empty_for(viewer) {
            wire::MapResponse::default()
        } else {
            let others = self.changed.iter().filter(|peer| peer.id != viewer);
            wire::MapResponse {
                peers_changed: others.filter_map(|peer| peer.node(to, context)).collect(),
                ..self.first_message(viewer)
            }
        };
        let first = wire::MapResponse { packet_filters, ..first };
        [Some(first).filter(has_content), self.second_message(viewer)]
            .into_iter()
            .flatten()
            .collect()
    }

    /// All that the first message on peers says to a viewer, but for [`Self::changed`].
    pub fn first_message(&self, viewer: NodeId) -> wire::MapResponse {
        let id = wire::NodeId(viewer.0.into());
        let removed = self.removed.iter().copied().filter(|peer| *peer != id);
        wire::MapResponse {
            peers_removed: removed.collect(),
            user_profiles: self.profiles.iter().chain(&self.owners).cloned().collect(),
            ..self.fields(viewer, false)
        }
    }

    /// The second message on peers to a viewer, if there is one.
    pub fn second_message(&self, viewer: NodeId) -> Option<wire::MapResponse> {
        Some(self.fields(viewer, true)).filter(has_content)
    }

    /// Fields of peers for a viewer: of those that are in `changed`, or of the others.
    fn fields(&self, viewer: NodeId, of_changed: bool) -> wire::MapResponse {
        let is_told = |id: wire::NodeId| {
            id != wire::NodeId(viewer.0.into()) && self.has_changed(id) == of_changed
        };
        let never_seen = self.never_seen.iter().copied().filter(|id| is_told(*id));
        let patches = self.patches.iter().filter(|patch| is_told(patch.node_id));
        wire::MapResponse {
            peer_seen_change: never_seen.map(|id| (id, false)).collect(),
            peers_changed_patch: patches.cloned().collect(),
            ..wire::MapResponse::default()
        }
    }

    fn has_changed(&self, id: wire::NodeId) -> bool {
        self.changed.binary_search_by_key(&id, |peer| wire::NodeId(peer.id.0.into())).is_ok()
    }
}

impl ChangedPeer {
    /// The peer as it is told.
    pub fn node(&self, to: &Snapshot, context: &MapContext) -> Option<wire::Node> {
        if let Some(node) = &self.held_back {
            return Some(wire::Node::clone(node));
        }
        let node = to.tailnet.node(self.id)?;
        Some(peer_as(node, self.view.clone(), to.at, context))
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
