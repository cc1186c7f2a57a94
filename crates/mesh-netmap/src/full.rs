//! The first message of a map stream: everything.

use std::collections::BTreeSet;

use mesh_model::{Node, NodeId, Timestamp, UserId};
use mesh_state::Snapshot;
use mesh_wire as wire;
use roaring::RoaringBitmap;

use crate::MapContext;
use crate::to_wire::{peer, self_node, ssh_policy, user_profile, whole_filter};

/// The whole netmap of a viewer; `None` if there is no such node. `now` is the time that the client is told,
/// for it judges key expiry by it.
///
/// A viewer whose own key has expired is told that, and of no peers: its client asks for a login.
pub fn full(
    snapshot: &Snapshot,
    viewer: NodeId,
    context: &MapContext,
    now: Timestamp,
) -> Option<wire::MapResponse> {
    let viewer = snapshot.tailnet.node(viewer)?;
    let peers = nodes(snapshot, &visible_peers(snapshot, viewer));
    let owners = peers.iter().map(|node| node.owner.user()).collect();
    let wire::MapResponse { derp_map, dns_config, domain, collect_services, debug, .. } =
        full_shared(context);
    Some(wire::MapResponse {
        derp_map,
        dns_config,
        domain,
        collect_services,
        debug,
        peers: peers.into_iter().map(|node| peer(snapshot, viewer.id, node, context)).collect(),
        ..full_own(snapshot, viewer, owners, context, now)
    })
}

/// What a whole netmap tells every viewer alike.
pub fn full_shared(context: &MapContext) -> wire::MapResponse {
    wire::MapResponse {
        derp_map: Some(context.derp_map.clone()),
        dns_config: Some(context.dns.clone()),
        domain: context.base_domain.clone(),
        collect_services: Some(false),
        debug: Some(wire::Debug { disable_log_tail: true, ..wire::Debug::default() }),
        ..wire::MapResponse::default()
    }
}

/// What a whole netmap tells a viewer besides [`full_shared`] and its peers, which belong to `owners`.
pub fn full_own(
    snapshot: &Snapshot,
    viewer: &Node,
    mut owners: BTreeSet<UserId>,
    context: &MapContext,
    now: Timestamp,
) -> wire::MapResponse {
    owners.insert(viewer.owner.user());
    let profile = |user| user_profile(&snapshot.tailnet, user);
    wire::MapResponse {
        node: Some(Box::new(self_node(snapshot, viewer, context))),
        packet_filters: whole_filter(snapshot, viewer),
        ssh_policy: ssh_policy(snapshot, viewer),
        user_profiles: owners.into_iter().map(profile).collect(),
        control_time: Some(now),
        ..wire::MapResponse::default()
    }
}

/// What a viewer has to be told before [`full`], and in it, if its session was told of the snapshot `told`; `None` if
/// the node is gone or goes on under another key.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Withdrawal {
    /// Peers to take back first, if there are none any more: to a client, no list of peers means that they are the same.
    pub peers: Vec<wire::NodeId>,
    /// SSH rules for [`full`], if it has none: to a client, no rules means that they are the same.
    pub ssh_policy: Option<wire::SshPolicy>,
}

/// What to take back of an earlier snapshot before a viewer is told everything once more.
pub fn withdrawal(told: &Snapshot, snapshot: &Snapshot, viewer: NodeId) -> Option<Withdrawal> {
    let new = snapshot.tailnet.node(viewer)?;
    let Some(old) = told.tailnet.node(viewer) else { return Some(Withdrawal::default()) };
    if old.node_key != new.node_key {
        return None;
    }
    let is_alone = visible_peers(snapshot, new).is_empty();
    let peers = if is_alone { visible_peers(told, old) } else { RoaringBitmap::new() };
    Some(Withdrawal {
        peers: peers.into_iter().map(|id| wire::NodeId(id.into())).collect(),
        ssh_policy: ssh_policy(told, old).map(|_| wire::SshPolicy::default()),
    })
}

/// The peers of a viewer; none if its own key has expired.
pub fn visible_peers(snapshot: &Snapshot, viewer: &Node) -> RoaringBitmap {
    if viewer.is_expired(snapshot.at) {
        RoaringBitmap::new()
    } else {
        snapshot.policy.peers(viewer.id)
    }
}

fn nodes<'a>(snapshot: &'a Snapshot, ids: &RoaringBitmap) -> Vec<&'a Node> {
    ids.iter().filter_map(|id| snapshot.tailnet.node(NodeId(id))).map(|node| &**node).collect()
}
