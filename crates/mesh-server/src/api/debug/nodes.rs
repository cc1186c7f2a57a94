//! What single nodes are told, and what they have to do with each other.

use axum::extract::State;
use axum::response::Response;
use mesh_model::Node;
use mesh_netmap::{PacketFilters, full};
use mesh_policy::{Explanation, Party, Question};
use mesh_state::{Refusal, Snapshot};
use mesh_wire::MapResponse;
use serde::Serialize;

use super::{DebugState, Desk};
use crate::api::Problem;
use crate::api::extract::Path;
use crate::api::v1::{WithText, find_node};

/// `GET /debug/nodes/{node}/map`: plain JSON, as a client that opens a stream now.
pub(super) async fn map(
    State(desk): State<Desk>,
    Path(node): Path<String>,
) -> Result<Response, Problem> {
    desk.answer(move |debug| full_map(debug, &node)).await
}

#[derive(Debug, Serialize)]
struct ShownFilter {
    node: u32,
    name: String,
    /// As the client is told, by the name of each part.
    packet_filters: PacketFilters,
}

/// `GET /debug/nodes/{node}/filter`.
pub(super) async fn filter(
    State(desk): State<Desk>,
    Path(node): Path<String>,
) -> Result<Response, Problem> {
    desk.answer(move |debug| {
        let snapshot = debug.app.store.snapshot();
        let found = find_node(&snapshot.tailnet, &node)?;
        let packet_filters = full_map(debug, &node)?.packet_filters;
        Ok(ShownFilter { node: found.id.0, name: found.given_name.clone(), packet_filters })
    })
    .await
}

fn full_map(debug: &DebugState, node: &str) -> Result<MapResponse, Problem> {
    let app = &debug.app;
    let snapshot = app.store.snapshot();
    let id = find_node(&snapshot.tailnet, node)?.id;
    let context = app.contexts.borrow().clone();
    let map = full(&snapshot, id, &context, app.clock.now());
    Ok(map.ok_or(Refusal::NodeNotFound)?)
}

/// Two nodes, from either side.
#[derive(Debug, Serialize)]
struct Pair {
    there: Side,
    back: Side,
}

/// What one node has of another.
#[derive(Debug, Serialize)]
struct Side {
    viewer: String,
    viewer_class: Option<u32>,
    peer: String,
    /// Whether the peer is in the viewer's map.
    sees: bool,
    addresses: Vec<String>,
    routes: Vec<String>,
    /// Whether the viewer's packets reach the peer.
    reaches: WithText<Explanation>,
}

/// `GET /debug/nodes/{node}/sees/{other}`.
pub(super) async fn sees(
    State(desk): State<Desk>,
    Path((node, other)): Path<(String, String)>,
) -> Result<Response, Problem> {
    desk.answer(move |debug| {
        let snapshot = debug.app.store.snapshot();
        let node = find_node(&snapshot.tailnet, &node)?;
        let other = find_node(&snapshot.tailnet, &other)?;
        Ok(Pair { there: side(&snapshot, node, other), back: side(&snapshot, other, node) })
    })
    .await
}

fn side(snapshot: &Snapshot, viewer: &Node, peer: &Node) -> Side {
    let policy = &snapshot.policy;
    let (src, dst) = (Party::Node(viewer.id), Party::Node(peer.id));
    let explanation = policy.explain(&Question { src, dst, port: None, proto: None });
    let sees = policy.sees(viewer.id, peer.id);
    let shown = if sees { policy.addresses_seen(viewer.id, peer.id) } else { Vec::new() };
    let routes = if sees { policy.routes_shown(viewer.id, peer.id) } else { Vec::new() };
    Side {
        viewer: viewer.given_name.clone(),
        viewer_class: policy.class_of(viewer.id).map(|class| class.0),
        peer: peer.given_name.clone(),
        sees,
        addresses: shown.iter().map(ToString::to_string).collect(),
        routes: routes.iter().map(ToString::to_string).collect(),
        reaches: WithText { text: explanation.to_string(), answer: explanation },
    }
}
