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
    /// These messages, in order; none if nothing is different for it.
    Private(Vec<wire::MapResponse>),
    /// Everything again ([`crate::full_again`]): too much of its own situation changed.
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
    let expired = new.is_expired(to.at);
    if old.is_expired(from.at) != expired {
        return Told::Everything;
    }
    let (old_class, class) = (from.everybody.class_of(old), to.everybody.class_of(new));
    // A viewer that is not announced does not see itself, so that a change of its user goes by it.
    let is_touched = changes.nodes.contains(viewer.0) || !new.is_announced();
    if !is_touched && !changes.key_ran_out && !expired && old_class == class {
        return Told::Shared(class);
    }
    let mut messages = Vec::new();
    if !expired {
        let classes = (old_class, class);
        messages.extend(peers_delta(from, to, changes, classes, Some(viewer), context));
    }
    // The own node makes clients rebuild their netmap, so it goes by itself, and last: the netmap that they keep
    // for when the next key runs out then holds everything.
    let own = self_delta(from, to, old, new, changes, context);
    messages.extend(Some(own).filter(has_content));
    Told::Private(messages)
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
        packet_filter: Some(Vec::new()),
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
/// No message, one, or two in order. Clients apply them in place, unless a field has changed that they cannot.
pub fn peers_delta(
    from: &Snapshot,
    to: &Snapshot,
    changes: &ChangeSet,
    classes: (ClassId, ClassId),
    except: Option<NodeId>,
    context: &MapContext,
) -> Vec<wire::MapResponse> {
    let before = from.everybody.visible_to(classes.0);
    let after = to.everybody.visible_to(classes.1);
    let mut touched: RoaringBitmap = (before ^ after) | (&changes.nodes & after);
    if let Some(viewer) = except {
        touched.remove(viewer.0);
    }
    let mut deltas = PeerDeltas::default();
    let mut users = visible_users(to, changes, after);
    for id in touched.iter().map(NodeId) {
        let was_visible = before.contains(id.0);
        match (from.tailnet.node(id).filter(|_| was_visible), to.tailnet.node(id)) {
            (None, Some(new)) => {
                users.insert(new.owner.user());
                deltas.first.peers_changed.push(peer(new, to.at, context));
            }
            (Some(old), Some(new)) if after.contains(id.0) => {
                if old.owner.user() != new.owner.user() {
                    users.insert(new.owner.user());
                }
                deltas.add_change(&peer(old, from.at, context), peer(new, to.at, context));
            }
            (Some(_), _) => deltas.first.peers_removed.push(wire::NodeId(id.0.into())),
            (None, None) => {}
        }
    }
    deltas.first.user_profiles =
        users.into_iter().map(|user| user_profile(&to.tailnet, user)).collect();
    let (old_rules, new_rules) =
        (from.everybody.packet_filter(classes.0), to.everybody.packet_filter(classes.1));
    if old_rules != new_rules {
        deltas.first.packet_filter = Some(packet_filter(new_rules));
    }
    [deltas.first, deltas.second].into_iter().filter(has_content).collect()
}

/// Changed users that a class can see, which its viewers know by their profiles.
fn visible_users(to: &Snapshot, changes: &ChangeSet, visible: &RoaringBitmap) -> BTreeSet<UserId> {
    let is_visible =
        |user: &&UserId| to.tailnet.nodes_of_user(**user).any(|node| visible.contains(node.id.0));
    changes.users.iter().filter(is_visible).copied().collect()
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
