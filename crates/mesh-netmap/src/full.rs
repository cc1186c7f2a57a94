//! The first message of a map stream: everything.

use std::collections::BTreeSet;

use mesh_model::{Node, NodeId, Timestamp, UserId};
use mesh_state::Snapshot;
use mesh_wire as wire;

use crate::MapContext;
use crate::to_wire::{packet_filter, peer, self_node, user_profile};

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
    let expired = viewer.is_expired(snapshot.at);
    let peers: Vec<&Node> =
        if expired { Vec::new() } else { visible_peers(snapshot, viewer).collect() };
    let users: BTreeSet<UserId> =
        peers.iter().copied().chain([&**viewer]).map(|node| node.owner.user()).collect();
    let class = snapshot.policy.class_of(viewer);
    let rules = if expired { &[] } else { snapshot.policy.packet_filter(class) };
    Some(wire::MapResponse {
        node: Some(Box::new(self_node(viewer, snapshot.at, context))),
        derp_map: Some(context.derp_map.clone()),
        peers: peers.into_iter().map(|node| peer(node, snapshot.at, context)).collect(),
        dns_config: Some(context.dns.clone()),
        domain: context.base_domain.clone(),
        collect_services: Some(false),
        packet_filter: Some(packet_filter(rules)),
        user_profiles: users
            .into_iter()
            .map(|user| user_profile(&snapshot.tailnet, user))
            .collect(),
        control_time: Some(now),
        debug: Some(wire::Debug { disable_log_tail: true, ..wire::Debug::default() }),
        ..wire::MapResponse::default()
    })
}

/// The peers of a viewer, by id.
fn visible_peers<'a>(snapshot: &'a Snapshot, viewer: &Node) -> impl Iterator<Item = &'a Node> {
    let own = viewer.id.0;
    let visible = snapshot.policy.visible_to(snapshot.policy.class_of(viewer));
    visible
        .iter()
        .filter(move |id| *id != own)
        .filter_map(|id| snapshot.tailnet.node(NodeId(id)))
        .map(|node| &**node)
}
