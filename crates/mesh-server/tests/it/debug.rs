//! What an admin sees of a server with nodes in it.

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use mesh_model::Clock as _;
use mesh_server::api::debug::{DebugState, router};
use mesh_server::api::{Access, AppState};
use mesh_server::metrics::{Metrics, register_population};
use mesh_server::operator_router;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::server::{TestServer, map_request};

/// Asks on the unix socket.
async fn ask(server: &TestServer, path: &str) -> (StatusCode, Value) {
    let app = &server.app;
    let admin = AppState {
        store: app.store.clone(),
        verifier: app.verifier.clone(),
        attempts: app.attempts.clone(),
        clock: app.clock.clone(),
        database: app.database.clone(),
        access: Access::Everybody,
        policy_file: None,
        metrics: Metrics::default(),
        body_bytes_max: 1024,
        contexts: app.contexts.clone(),
        stop: CancellationToken::new(),
    };
    let started_at = server.clock.now();
    let debug = DebugState { app: app.clone(), settings: [].into(), started_at };
    let request = Request::get(format!("/debug{path}")).body(Body::empty()).unwrap();
    let answer = router(admin, debug).oneshot(request).await.unwrap();
    let status = answer.status();
    let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn two_nodes_are_looked_at_from_both_sides() {
    let server = TestServer::start().await;
    let (one, two) = (server.join(1).await, server.join(2).await);
    let mut streams = Vec::new();
    for (number, client) in [(1, &one), (2, &two)] {
        let mut stream = client.map_stream(&map_request(number)).await.unwrap();
        stream.next().await.unwrap();
        streams.push(stream);
    }

    let (status, map) = ask(&server, "/nodes/machine-1/map").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(map["Node"]["ID"], 1);
    let (_, same) = ask(&server, "/nodes/1/map").await;
    assert_eq!(map["Node"], same["Node"]);
    let (_, filter) = ask(&server, "/nodes/1/filter").await;
    assert_eq!(filter["packet_filters"], map["PacketFilters"]);
    let (_, pair) = ask(&server, "/nodes/1/sees/machine-2").await;
    for side in ["there", "back"] {
        assert_eq!(
            pair[side]["sees"],
            server.store.snapshot().policy.sees(mesh_model::NodeId(1), mesh_model::NodeId(2),)
        );
        assert!(pair[side]["reaches"]["text"].is_string(), "{pair}");
    }
    let (_, streams_shown) = ask(&server, "/streams").await;
    assert_eq!(streams_shown["open"], 2);
    assert!(streams_shown["streams"][0]["bytes"].as_u64().unwrap() > 100, "{streams_shown}");
    let (status, _) = ask(&server, "/nodes/machine-9/map").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn who_is_there_is_counted() {
    let server = TestServer::start().await;
    let client = server.join(1).await;
    let mut stream = client.map_stream(&map_request(1)).await.unwrap();
    stream.next().await.unwrap();
    let mut registry = Registry::default();
    register_population(server.app.clone(), &mut registry);
    let router = operator_router(server.app.clone(), registry);
    let request = Request::get("/metrics").body(Body::empty()).unwrap();
    let answer = router.oneshot(request).await.unwrap();
    let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    let text = std::str::from_utf8(&body).unwrap();
    for line in [
        r#"nodes{state="online",owner="user",ephemeral="false"} 1"#,
        r#"connections{stage="upgraded"} 1"#,
        "users 1",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} is missing in\n{text}");
    }
}
