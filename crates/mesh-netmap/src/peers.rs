//! What a group of viewers is told of its peers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use mesh_model::{Node, NodeId};
use mesh_state::Snapshot;
use mesh_wire as wire;

use crate::MapContext;
use crate::delta::{Step, has_content};
use crate::to_wire::{PacketFilters, PeerAspect, peer_as};

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
    /// How viewers see it.
    pub aspect: PeerAspect,
    /// The node, if it is told otherwise than [`peer_as`] has it, to leave to patches what patches can say.
    pub held_back: Option<Arc<wire::Node>>,
}

/// What is different about a peer that stays.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    changed: Option<ChangedPeer>,
    patch: Option<wire::PeerChange>,
    never_seen: Option<wire::NodeId>,
}

/// How a peer was and is seen.
type Aspects = [PeerAspect; 2];

type Compared = HashMap<NodeId, Vec<(Aspects, Arc<Difference>)>>;

/// What is different about peers that stay, worked out once for all groups of a step that see them alike.
#[derive(Debug, Default)]
pub struct Comparisons(Mutex<Compared>);

impl Comparisons {
    pub(crate) fn get_or_make(
        &self,
        step: Step<'_>,
        old: &Node,
        new: &Node,
        aspects: Aspects,
    ) -> Arc<Difference> {
        let known = |all: &Compared| {
            let (_, known) = all.get(&new.id)?.iter().find(|(known, _)| *known == aspects)?;
            Some(known.clone())
        };
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known(&lock()) {
            return known;
        }
        // Two may make the same at once, which is no harm.
        let difference = Arc::new(Difference::of(step, old, new, &aspects));
        lock().entry(new.id).or_default().push((aspects, difference.clone()));
        difference
    }
}

impl Difference {
    /// What is different: single fields if clients can apply those in place, else the whole node.
    ///
    /// A whole node that differs only in what patches can say is made a patch of by the client, which loses every
    /// field that becomes empty on the way. So the fields that have a patch of their own stay out of it.
    ///
    /// Source: tailscale `control/controlclient/map.go`, `peerChangeDiff`.
    fn of(step: Step<'_>, old: &Node, new: &Node, [was, is]: &Aspects) -> Self {
        let id = new.id;
        let old = peer_as(old, was, step.from.at, step.context);
        let new = peer_as(new, is, step.to.at, step.context);
        let slow = wire::Node {
            endpoints: old.endpoints.clone(),
            home_derp: old.home_derp,
            online: old.online,
            last_seen: old.last_seen,
            ..new.clone()
        };
        let changed = |held_back| Some(ChangedPeer { id, aspect: is.clone(), held_back });
        if differs_beyond_patches(&old, &slow) {
            return Self { changed: changed(None), ..Self::default() };
        }
        let mut difference = Self::of_fields(&old, new);
        if slow != old {
            difference.changed = changed(Some(Arc::new(slow)));
        }
        difference
    }

    /// What is different in the fields that clients patch in place. A home region does not become none but with the
    /// expiry of the key, which is beyond patches.
    fn of_fields(old: &wire::Node, new: wire::Node) -> Self {
        let id = new.id;
        let nothing = wire::PeerChange { node_id: id, ..wire::PeerChange::default() };
        let patch = wire::PeerChange {
            derp_region: Some(new.home_derp)
                .filter(|home| *home != old.home_derp)
                .unwrap_or_default(),
            endpoints: (old.endpoints != new.endpoints).then_some(new.endpoints),
            online: new.online.filter(|_| old.online != new.online),
            last_seen: new.last_seen.filter(|_| old.last_seen != new.last_seen),
            ..nothing.clone()
        };
        let patch = Some(patch).filter(|patch| *patch != nothing);
        // Only of a node that connects while its key has expired: it stays offline, and nothing else is told.
        let is_never_seen = patch.is_none() && old.last_seen != new.last_seen;
        Self { changed: None, patch, never_seen: is_never_seen.then_some(id) }
    }
}

impl PeersDelta {
    /// Adds what is different about a peer that stays.
    pub(crate) fn add(&mut self, difference: &Difference) {
        let Difference { changed, patch, never_seen } = difference;
        self.changed.extend(changed.clone());
        self.patches.extend(patch.clone());
        self.never_seen.extend(*never_seen);
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
        Some(peer_as(node, &self.aspect, to.at, context))
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
