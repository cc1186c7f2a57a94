//! The whole server at a glance.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::response::Response;
use mesh_model::{NodeId, Timestamp};
use mesh_state::Snapshot;
use mesh_store::QUEUE_COMMANDS_MAX;
use serde::Serialize;

use super::{DebugState, Desk};
use crate::api::Problem;

/// How many classes and streams an answer lists.
const LISTED_MAX: usize = 1000;

#[derive(Debug, Serialize)]
struct Overview {
    version: &'static str,
    started_at: Timestamp,
    now: Timestamp,
    is_stopping: bool,
    epoch: u64,
    revision: u64,
    nodes: usize,
    nodes_online: usize,
    users: usize,
    preauth_keys: usize,
    api_keys: usize,
    logins: usize,
    streams: usize,
    policy_version: u64,
    policy_classes: usize,
    queues: Queues,
    connections_unclaimed: usize,
    connections_upgraded: usize,
    relay_clients: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Queues {
    store: usize,
    store_max: usize,
    handshakes_free: usize,
}

/// `GET /debug/overview`.
pub(super) async fn show(State(desk): State<Desk>) -> Result<Response, Problem> {
    desk.answer(|debug| Ok(overview(debug))).await
}

fn overview(DebugState { app, started_at, settings: _ }: &DebugState) -> Overview {
    let snapshot = app.store.snapshot();
    let tailnet = &snapshot.tailnet;
    Overview {
        version: env!("CARGO_PKG_VERSION"),
        started_at: *started_at,
        now: app.clock.now(),
        is_stopping: app.stop.is_cancelled(),
        epoch: snapshot.epoch,
        revision: snapshot.revision,
        nodes: tailnet.node_count(),
        nodes_online: tailnet.nodes().filter(|node| node.session.is_some()).count(),
        users: tailnet.users().count(),
        preauth_keys: tailnet.preauth_keys().count(),
        api_keys: tailnet.api_keys().count(),
        logins: snapshot.logins.len(),
        streams: app.streamer.streams().len(),
        policy_version: tailnet.policy_version().map_or(0, |version| version.id.0),
        policy_classes: snapshot.policy.relation_size().classes,
        queues: Queues {
            store: app.store.queue_depth(),
            store_max: QUEUE_COMMANDS_MAX,
            handshakes_free: app.handshakes.available_permits(),
        },
        connections_unclaimed: app.slots.taken(),
        connections_upgraded: app.channels.len(),
        relay_clients: app
            .relay
            .as_ref()
            .map(|relay| relay.stats().clients.load(Ordering::Relaxed)),
    }
}

/// The policy in force, and what it makes of the nodes.
#[derive(Debug, Serialize)]
struct ShownPolicy {
    version: u64,
    digest: String,
    created_at: Option<Timestamp>,
    created_by: String,
    text: String,
    classes: usize,
    bytes: usize,
    /// The largest ones.
    largest_classes: Vec<Class>,
}

/// Nodes that the policy cannot tell apart.
#[derive(Debug, Serialize)]
struct Class {
    id: u32,
    nodes: usize,
    /// How many nodes each of them sees.
    peers: u64,
    /// One of them.
    for_example: String,
}

/// `GET /debug/policy`.
pub(super) async fn policy(State(desk): State<Desk>) -> Result<Response, Problem> {
    desk.answer(|debug| Ok(shown_policy(&debug.app.store.snapshot()))).await
}

fn shown_policy(snapshot: &Snapshot) -> ShownPolicy {
    let version = snapshot.tailnet.policy_version();
    let size = snapshot.policy.relation_size();
    ShownPolicy {
        version: version.map_or(0, |version| version.id.0),
        digest: version.map_or_else(String::new, |version| version.digest.clone()),
        created_at: version.map(|version| version.created_at),
        created_by: version.map_or_else(String::new, |version| version.created_by.clone()),
        text: version.map_or_else(String::new, |version| version.text.clone()),
        classes: size.classes,
        bytes: size.bytes,
        largest_classes: classes(snapshot),
    }
}

fn classes(snapshot: &Snapshot) -> Vec<Class> {
    let mut members: HashMap<u32, (usize, NodeId)> = HashMap::new();
    for node in snapshot.tailnet.nodes() {
        if let Some(class) = snapshot.policy.class_of(node.id) {
            members.entry(class.0).or_insert((0, node.id)).0 += 1;
        }
    }
    let mut members: Vec<_> = members.into_iter().collect();
    members.sort_by_key(|(class, (nodes, _))| (Reverse(*nodes), *class));
    let class = |(class, (nodes, member)): (u32, (usize, NodeId))| Class {
        id: class,
        nodes,
        peers: snapshot.policy.peers(member).len(),
        for_example: name(snapshot, member),
    };
    members.into_iter().take(LISTED_MAX).map(class).collect()
}

/// A node's name; empty if it is gone.
fn name(snapshot: &Snapshot, node: NodeId) -> String {
    snapshot.tailnet.node(node).map_or_else(String::new, |node| node.given_name.clone())
}

#[derive(Debug, Serialize)]
struct Streams {
    open: usize,
    /// Those furthest behind.
    streams: Vec<ShownStream>,
}

#[derive(Debug, Serialize)]
struct ShownStream {
    node: u32,
    name: String,
    session: u64,
    open_seconds: u64,
    /// `null` until it was told of a first flush.
    flushes_behind: Option<u64>,
    messages: u64,
    bytes: u64,
}

/// `GET /debug/streams`.
pub(super) async fn streams(State(desk): State<Desk>) -> Result<Response, Problem> {
    desk.answer(|debug| Ok(shown_streams(debug))).await
}

fn shown_streams(debug: &DebugState) -> Streams {
    let snapshot = debug.app.store.snapshot();
    let mut all = debug.app.streamer.streams();
    let open = all.len();
    all.sort_by_key(|stream| (Reverse(stream.flushes_behind), stream.session.0));
    let shown = |stream: mesh_streamer::StreamStatus| ShownStream {
        node: stream.node.0,
        name: name(&snapshot, stream.node),
        session: stream.session.0,
        open_seconds: stream.open_for.as_secs(),
        flushes_behind: stream.flushes_behind,
        messages: stream.messages,
        bytes: stream.bytes,
    };
    Streams { open, streams: all.into_iter().take(LISTED_MAX).map(shown).collect() }
}
