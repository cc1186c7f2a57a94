//! What is different between two snapshots, for one viewer or for a whole class of them.

use std::collections::BTreeSet;

use mesh_model::{Node, NodeId, Timestamp, Tombstone, UserId};
use mesh_policy::ClassId;
use mesh_state::{ChangeSet, Snapshot};
use mesh_wire as wire;
use roaring::RoaringBitmap;

use crate::MapContext;
use crate::to_wire::{packet_filter, peer, self_node, tagged_devices, user_profile};

/// What a viewer is to be told of the way from one snapshot to another.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// What every viewer of its class is told, and nothing else: [`peers_delta`] without an exception.
    Shared(ClassId),
    /// These messages, in order: its own node is among what changed.
    Private(Vec<wire::MapResponse>),
    /// Everything again: too much of its own situation changed.
    Everything,
    /// That it is gone, by this message; then its stream ends. The message is absent if the node goes on
    /// under another key, whose stream has or will have its own netmap.
    Gone(Option<Box<wire::MapResponse>>),
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
        return Told::Gone(Some(Box::new(farewell(old, to, context))));
    };
    if old.node_key != new.node_key {
        return Told::Gone(None);
    }
    if old.is_expired(from.at) != new.is_expired(to.at) {
        return Told::Everything;
    }
    if new.is_expired(to.at) {
        return Told::Private(Vec::new());
    }
    let (old_class, class) = (from.policy.class_of(old), to.policy.class_of(new));
    let is_touched = changes.nodes.contains(viewer.0) || changes.users.contains(&new.owner.user());
    if !is_touched && !changes.key_ran_out && old_class == class {
        return Told::Shared(class);
    }
    let own = self_delta(from, to, old, new, changes, context);
    let mut peers = peers_delta(from, to, changes, (old_class, class), Some(viewer), context);
    if own.node.is_some() {
        // Whatever comes with the own node is told in one rebuild, but peers go by themselves: the message
        // about them then stays one that clients apply in place.
        return Told::Private([own, peers].into_iter().filter(has_content).collect());
    }
    peers.user_profiles.extend(own.user_profiles);
    Told::Private([peers].into_iter().filter(has_content).collect())
}

fn has_content(message: &wire::MapResponse) -> bool {
    *message != wire::MapResponse::default()
}

/// The last message to a deleted node: its own key, expired. Its client then asks for a login, where a
/// refusal of its next request would leave it believing that all is well.
fn farewell(node: &Node, to: &Snapshot, context: &MapContext) -> wire::MapResponse {
    let expired = Node { expires_at: Some(node.created_at.min(to.at)), ..node.clone() };
    wire::MapResponse {
        node: Some(Box::new(self_node(&expired, to.at, context))),
        ..wire::MapResponse::default()
    }
}

/// All that the client of a deleted node is told when it comes back: that its key has expired.
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
        user_profiles: vec![tagged_devices()],
        domain: context.base_domain.clone(),
        control_time: Some(now),
        ..wire::MapResponse::default()
    }
}

/// What a viewer is told of itself.
fn self_delta(
    from: &Snapshot,
    to: &Snapshot,
    old: &Node,
    new: &Node,
    changes: &ChangeSet,
    context: &MapContext,
) -> wire::MapResponse {
    let (was, is) = (self_node(old, from.at, context), self_node(new, to.at, context));
    let user = new.owner.user();
    let has_new_profile = old.owner.user() != user || changes.users.contains(&user);
    wire::MapResponse {
        node: (was != is || changes.key_ran_out).then(|| Box::new(is)),
        user_profiles: has_new_profile
            .then(|| user_profile(&to.tailnet, user))
            .into_iter()
            .collect(),
        ..wire::MapResponse::default()
    }
}

/// What the viewers of a class are told of their peers, and of the packet filter. `classes` are the viewer's
/// class before and after; `except` leaves out the viewer itself, which is not its own peer.
///
/// The result is a message that clients apply in place.
pub fn peers_delta(
    from: &Snapshot,
    to: &Snapshot,
    changes: &ChangeSet,
    classes: (ClassId, ClassId),
    except: Option<NodeId>,
    context: &MapContext,
) -> wire::MapResponse {
    let before = from.policy.visible_to(classes.0);
    let after = to.policy.visible_to(classes.1);
    let mut touched: RoaringBitmap = (before ^ after) | (&changes.nodes & after);
    if let Some(viewer) = except {
        touched.remove(viewer.0);
    }
    let mut message = wire::MapResponse::default();
    let mut users = visible_users(to, changes, after);
    for id in touched.iter().map(NodeId) {
        let was_visible = before.contains(id.0);
        match (from.tailnet.node(id).filter(|_| was_visible), to.tailnet.node(id)) {
            (None, Some(new)) => {
                users.insert(new.owner.user());
                message.peers_changed.push(peer(new, to.at, context));
            }
            (Some(old), Some(new)) if after.contains(id.0) => {
                if old.owner.user() != new.owner.user() {
                    users.insert(new.owner.user());
                }
                peer_delta(&mut message, &peer(old, from.at, context), peer(new, to.at, context));
            }
            (Some(_), _) => message.peers_removed.push(wire::NodeId(id.0.into())),
            (None, None) => {}
        }
    }
    message.user_profiles = users.into_iter().map(|user| user_profile(&to.tailnet, user)).collect();
    let (old_rules, new_rules) =
        (from.policy.packet_filter(classes.0), to.policy.packet_filter(classes.1));
    if old_rules != new_rules {
        message.packet_filter = Some(packet_filter(new_rules));
    }
    message
}

/// Changed users that a class can see, which its viewers know by their profiles.
fn visible_users(to: &Snapshot, changes: &ChangeSet, visible: &RoaringBitmap) -> BTreeSet<UserId> {
    let is_visible =
        |user: &&UserId| to.tailnet.nodes_of_user(**user).any(|node| visible.contains(node.id.0));
    changes.users.iter().filter(is_visible).copied().collect()
}

/// Adds what is different about a peer: a patch if clients can apply one in place, else the whole node.
fn peer_delta(message: &mut wire::MapResponse, old: &wire::Node, new: wire::Node) {
    if *old == new {
        return;
    }
    let lost_home = old.home_derp != new.home_derp && new.home_derp == wire::DerpRegionId(0);
    let patched = wire::Node {
        endpoints: new.endpoints.clone(),
        home_derp: new.home_derp,
        online: new.online,
        last_seen: new.last_seen,
        ..old.clone()
    };
    if lost_home || patched != new {
        message.peers_changed.push(new);
        return;
    }
    let patch = wire::PeerChange {
        node_id: new.id,
        derp_region: if old.home_derp == new.home_derp {
            wire::DerpRegionId(0)
        } else {
            new.home_derp
        },
        endpoints: (old.endpoints != new.endpoints).then_some(new.endpoints),
        online: new.online.filter(|_| old.online != new.online),
        last_seen: new.last_seen.filter(|_| old.last_seen != new.last_seen),
        ..wire::PeerChange::default()
    };
    if old.last_seen.is_some() && new.last_seen.is_none() {
        // A patch cannot clear a field; this can.
        message.peer_seen_change.insert(new.id, false);
    }
    if patch != (wire::PeerChange { node_id: new.id, ..wire::PeerChange::default() }) {
        message.peers_changed_patch.push(patch);
    }
}
