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
    let peers: Vec<&Node> = visible_peers(snapshot, viewer).collect();
    let users: BTreeSet<UserId> =
        peers.iter().copied().chain([&**viewer]).map(|node| node.owner.user()).collect();
    Some(wire::MapResponse {
        node: Some(Box::new(self_node(snapshot, viewer, context))),
        derp_map: Some(context.derp_map.clone()),
        peers: peers.into_iter().map(|node| peer(snapshot, viewer.id, node, context)).collect(),
        dns_config: Some(context.dns.clone()),
        domain: context.base_domain.clone(),
        collect_services: Some(false),
        packet_filters: whole_filter(snapshot, viewer),
        ssh_policy: ssh_policy(snapshot, viewer),
        user_profiles: users
            .into_iter()
            .map(|user| user_profile(&snapshot.tailnet, user))
            .collect(),
        control_time: Some(now),
        debug: Some(wire::Debug { disable_log_tail: true, ..wire::Debug::default() }),
        ..wire::MapResponse::default()
    })
}

/// The whole netmap once more, for a viewer whose session was told of the snapshot `told`; `None` if the node is
/// gone or goes on under another key. One message, after one that takes back the peers if there are none any more:
/// to a client, no list of peers means that they are the same.
pub fn full_again(
    told: &Snapshot,
    snapshot: &Snapshot,
    viewer: NodeId,
    context: &MapContext,
    now: Timestamp,
) -> Option<Vec<wire::MapResponse>> {
    let known = told.tailnet.node(viewer);
    let key = snapshot.tailnet.node(viewer)?.node_key;
    if known.is_some_and(|known| known.node_key != key) {
        return None;
    }
    let mut message = full(snapshot, viewer, context, now)?;
    if let Some(known) = known {
        // To a client, no SSH rules means that they are the same.
        let withdrawn = || ssh_policy(told, known).map(|_| wire::SshPolicy::default());
        message.ssh_policy = message.ssh_policy.or_else(withdrawn);
    }
    let peers_removed: Vec<_> = known
        .into_iter()
        .filter(|_| message.peers.is_empty())
        .flat_map(|viewer| visible_peers(told, viewer))
        .map(|node| wire::NodeId(node.id.0.into()))
        .collect();
    let removal = (!peers_removed.is_empty())
        .then(|| wire::MapResponse { peers_removed, ..wire::MapResponse::default() });
    Some(removal.into_iter().chain([message]).collect())
}

/// The peers of a viewer, by id; none if its own key has expired.
fn visible_peers<'a>(snapshot: &'a Snapshot, viewer: &Node) -> impl Iterator<Item = &'a Node> {
    let visible = if viewer.is_expired(snapshot.at) {
        RoaringBitmap::new()
    } else {
        snapshot.policy.peers(viewer.id)
    };
    visible.into_iter().filter_map(|id| snapshot.tailnet.node(NodeId(id))).map(|node| &**node)
}
