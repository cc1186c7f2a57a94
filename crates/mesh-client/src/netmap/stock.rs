//! The short cuts of the Go client, as a rewriting of messages.
//!
//! Source: tailscale `control/controlclient/map.go`, `patchifyPeersChanged`, `removeUnwantedDiscoUpdates`,
//! `removeUnwantedDiscoUpdatesFromFullNetmapUpdate`.

use std::collections::BTreeMap;

use mesh_wire::{MapResponse, Node, NodeId, PeerChange};

use super::{patch_peer, upgraded};

/// Rewrites `message` so that applying it as it is meant gives what a stock client that knows `peers` makes of it.
/// Returns whether the client finds a patch among the changed peers that it does not apply in place.
pub(super) fn rewrite(peers: &BTreeMap<NodeId, Node>, message: &mut MapResponse) -> bool {
    message
        .peers_changed_patch
        .retain(|patch| peers.get(&patch.node_id).is_none_or(|known| !is_distrusted(known, patch)));
    for peer in &mut message.peers {
        if let Some(known) = peers.get(&peer.id) {
            keep_disco_key(known, peer);
        }
    }
    let mut slow = false;
    for peer in &mut message.peers_changed {
        if let Some(known) = peers.get(&peer.id) {
            slow |= patch_instead(known, peer);
        }
    }
    slow
}

/// Makes of a changed peer what is left if only its patchable differences are applied, provided that there are no
/// others. Returns whether the patch is a slow one.
fn patch_instead(known: &Node, peer: &mut Node) -> bool {
    let changed = upgraded(std::mem::take(peer));
    if differs_beyond_patches(known, &changed) {
        *peer = changed;
        return false;
    }
    *peer = known.clone();
    let patch = difference(known, &changed);
    if is_distrusted(known, &patch) {
        return false;
    }
    let slow = !patch.is_fast() || known.key_expiry != changed.key_expiry;
    patch_peer(peer, patch);
    // The one field that Go's patch can also clear, and ours cannot.
    peer.key_expiry = changed.key_expiry;
    slow
}

fn differs_beyond_patches(known: &Node, changed: &Node) -> bool {
    let with_known_fields = Node {
        key: known.key,
        key_expiry: known.key_expiry,
        key_signature: known.key_signature.clone(),
        disco_key: known.disco_key,
        endpoints: known.endpoints.clone(),
        home_derp: known.home_derp,
        cap: known.cap,
        cap_map: known.cap_map.clone(),
        online: known.online,
        last_seen: known.last_seen,
        data_plane_audit_log_id: known.data_plane_audit_log_id.clone(),
        ..changed.clone()
    };
    with_known_fields != *known
}

/// The patch that the client makes; what has become none is missing from it.
fn difference(known: &Node, changed: &Node) -> PeerChange {
    let online = known.online.and(changed_value(&known.online, &changed.online)).flatten();
    let last_seen = known.last_seen.and(changed_value(&known.last_seen, &changed.last_seen));
    let endpoints = changed_value(&known.endpoints, &changed.endpoints);
    PeerChange {
        node_id: changed.id,
        derp_region: changed_value(&known.home_derp, &changed.home_derp).unwrap_or_default(),
        cap: changed_value(&known.cap, &changed.cap).unwrap_or_default(),
        cap_map: changed_value(&known.cap_map, &changed.cap_map),
        endpoints: endpoints.filter(|endpoints| !endpoints.is_empty()),
        key: changed_value(&known.key, &changed.key),
        key_signature: changed_value(&known.key_signature, &changed.key_signature)
            .unwrap_or_default(),
        disco_key: changed_value(&known.disco_key, &changed.disco_key),
        online,
        last_seen: last_seen.flatten(),
        key_expiry: None,
    }
}

fn changed_value<T: Clone + PartialEq>(known: &T, changed: &T) -> Option<T> {
    (known != changed).then(|| changed.clone())
}

/// Whether the client drops the patch whole: a disco key of a peer that is offline and was not seen since.
fn is_distrusted(known: &Node, patch: &PeerChange) -> bool {
    let (Some(_), Some(false), Some(seen)) = (patch.disco_key, patch.online, patch.last_seen)
    else {
        return false;
    };
    known.last_seen.is_some_and(|known| seen <= known)
}

/// The same distrust for a full list of peers: the client keeps the disco key and the time it knows.
fn keep_disco_key(known: &Node, peer: &mut Node) {
    let differs = !peer.disco_key.is_zero() && peer.disco_key != known.disco_key;
    let Some(known_seen) = known.last_seen else { return };
    if differs && peer.online != Some(true) && peer.last_seen.is_none_or(|seen| seen <= known_seen)
    {
        peer.disco_key = known.disco_key;
        peer.last_seen = Some(known_seen);
    }
}
