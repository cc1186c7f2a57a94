//! The operator's listener of a relay by itself: metrics, health, and a look inside.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use mesh_config::Config;
use mesh_derp::DropReason;
use mesh_derp_verify::{Verifier, VerifyStats};
use mesh_model::{Clock as _, Timestamp};
use mesh_relay::Relay;
use mesh_server::{Listening, Slots, metrics_router};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::serve::operator::{CONNECTIONS_MAX, bind};
use crate::serve::{SystemClock, metrics};

/// How often counts are looked at before they count as wrong.
const LOOKS: usize = 5;

/// How long from one look to the next.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// What can be looked at; the answer to `/debug`.
const INDEX: &str = "\
/debug/overview  counts, and what they rest on
/debug/check     whether what is counted fits together
";

/// Serves the operator.
pub(crate) struct Operator<'a> {
    config: &'a Config,
    verifier: Option<&'a Verifier>,
    desk: Desk,
}

/// What the handlers work with.
#[derive(Clone)]
struct Desk {
    relay: Relay,
    /// The list of nodes by which logins are answered, if it is followed.
    list: Option<Arc<VerifyStats>>,
    /// Whether nobody gets in until that list has come.
    waits_for_list: bool,
    started_at: Timestamp,
}

impl<'a> Operator<'a> {
    pub(crate) fn new(config: &'a Config, relay: &Relay, verifier: Option<&'a Verifier>) -> Self {
        let list = verifier.filter(|verifier| verifier.follows_a_list());
        let desk = Desk {
            relay: relay.clone(),
            list: list.map(|verifier| Arc::clone(verifier.stats())),
            waits_for_list: list.is_some() && !config.derp.server.verify.fail_open,
            started_at: SystemClock.now(),
        };
        Self { config, verifier, desk }
    }

    /// Opens the listener, if it is wanted. It answers while the relay drains, until `stop`.
    pub(crate) async fn listen(self, stop: &CancellationToken) -> anyhow::Result<()> {
        let Some(listener) = bind(self.config.metrics_listen_addr).await? else { return Ok(()) };
        let mut registry = metrics::base();
        let ours = registry.sub_registry_with_prefix(metrics::PREFIX);
        mesh_relay::metrics::register(Arc::clone(self.desk.relay.stats()), ours);
        if let Some(verifier) = self.verifier {
            mesh_derp_verify::metrics::register(verifier, ours);
        }
        let limits = &self.config.limits;
        let listening = Listening {
            router: metrics_router(registry).merge(router(self.desk)),
            slots: Slots::new(CONNECTIONS_MAX, CONNECTIONS_MAX),
            header_timeout: limits.header_timeout,
            tls_timeout: limits.handshake_timeout,
            stall_timeout: limits.stall_timeout,
            trusted_proxies: Arc::default(),
            stop: stop.clone(),
            connections: TaskTracker::new(),
        };
        tokio::spawn(listening.run_tcp(listener, None));
        Ok(())
    }
}

fn router(desk: Desk) -> Router {
    Router::new()
        .route("/readyz", get(readyz))
        .route("/debug", get(async || INDEX))
        .route("/debug/overview", get(overview))
        .route("/debug/check", get(check))
        .with_state(desk)
}

/// `GET /readyz`: whether clients are welcome, and what that rests on.
async fn readyz(State(desk): State<Desk>) -> (StatusCode, Json<Value>) {
    let is_accepting = desk.relay.is_accepting();
    let has_list = desk.list.as_ref().is_none_or(|list| list.has_list());
    let knows_clients = has_list || !desk.waits_for_list;
    let is_ready = is_accepting && knows_clients;
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let checks = json!({ "accepting": is_accepting, "knows_clients": knows_clients });
    (status, Json(json!({ "ready": is_ready, "checks": checks })))
}

/// `GET /debug/overview`. It holds no key or address of a client, so anybody who reaches the listener may look.
async fn overview(State(desk): State<Desk>) -> Json<Value> {
    let stats = desk.relay.stats();
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let dropped: serde_json::Map<String, Value> = DropReason::ALL
        .into_iter()
        .map(|reason| (reason.label().to_owned(), stats.dropped(reason).total().packets.into()))
        .collect();
    let told = |list: &Arc<VerifyStats>| json!({ "has_come": list.has_list(), "is_followed": list.is_following() });
    let list = desk.list.as_ref().map(told);
    Json(json!({
        "version": crate::version::VERSION,
        "started_at": desk.started_at,
        "public_key": desk.relay.public_key().to_string(),
        "accepting": desk.relay.is_accepting(),
        "clients": load(&stats.clients),
        "home_clients": load(&stats.home_clients),
        "connections": load(&stats.connections),
        "logins": load(&stats.logins),
        "packets_received": stats.received.total().packets,
        "packets_sent": stats.sent.total().packets,
        "packets_dropped": dropped,
        "packets_forwarded": stats.forwarded.total().packets,
        "mesh_peers": load(&stats.mesh_peers),
        "list_of_nodes": list,
    }))
}

/// `GET /debug/check`: 500 if the relay's counts contradict each other, which would be an error of ours. Clients
/// come and go between one count and the next, which several looks tell apart.
async fn check(State(desk): State<Desk>) -> (StatusCode, Json<Value>) {
    let mut counts = Counts::of(&desk.relay);
    for _ in 1..LOOKS {
        if counts.is_consistent() {
            break;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
        counts = Counts::of(&desk.relay);
    }
    let is_consistent = counts.is_consistent();
    let status = if is_consistent { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    (status, Json(json!({ "consistent": is_consistent, "counts": counts })))
}

/// Who is connected, as different parts of the relay count them.
#[derive(Debug, Clone, Copy, Serialize)]
struct Counts {
    keys: u64,
    connections: u64,
    home_connections: u64,
}

impl Counts {
    fn of(relay: &Relay) -> Self {
        let stats = relay.stats();
        Self {
            keys: relay.connected().len() as u64,
            connections: stats.clients.load(Ordering::Relaxed),
            home_connections: stats.home_clients.load(Ordering::Relaxed),
        }
    }

    /// A key may have several connections, and none has no key.
    fn is_consistent(self) -> bool {
        self.keys <= self.connections
            && (self.keys > 0 || self.connections == 0)
            && self.home_connections <= self.connections
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_contradict_each_other_are_told() {
        for (keys, connections, home_connections, expected) in
            [(0, 0, 0, true), (2, 3, 3, true), (0, 1, 0, false), (2, 1, 0, false), (1, 1, 2, false)]
        {
            let counts = Counts { keys, connections, home_connections };
            assert_eq!(counts.is_consistent(), expected, "{counts:?}");
        }
    }
}
