use axum::http::Method;
use jiff::SignedDuration;
use mesh_state::Command;
use serde_json::{Value, json};

use crate::api::Server;

async fn server_with_node() -> Server {
    let server = Server::start();
    server.with_user("alice").await;
    server.with_node("Joe's Laptop", "alice").await;
    server
}

#[tokio::test]
async fn a_node_is_shown_whole() {
    let server = server_with_node().await;
    let digest = blake3::hash(b"Joe's Laptop").to_hex();
    let list = server.get("/node").await;
    let node = &list["nodes"][0];
    let masked = node["preAuthKey"]["key"].as_str().unwrap();
    assert!(masked.starts_with("tskey-auth-") && masked.ends_with("-***"), "{masked}");
    let user = server.get("/user").await["users"][0].clone();
    let expected = json!({
        "id": "1",
        "machineKey": format!("mkey:{digest}"),
        "nodeKey": format!("nodekey:{digest}"),
        "discoKey": format!("discokey:{}", "0".repeat(64)),
        "ipAddresses": ["100.64.0.1", "fd7a:115c:a1e0::1"],
        "name": "Joe's Laptop",
        "user": user,
        "lastSeen": node["lastSeen"],
        "expiry": null,
        "preAuthKey": {
            "user": user,
            "id": "1",
            "key": masked,
            "reusable": false,
            "ephemeral": false,
            "used": true,
            "expiration": null,
            "createdAt": "2026-01-01T00:00:00Z",
            "aclTags": [],
        },
        "createdAt": "2026-01-01T00:00:00Z",
        "registerMethod": "REGISTER_METHOD_AUTH_KEY",
        "givenName": "joes-laptop",
        "online": false,
        "approvedRoutes": [],
        "availableRoutes": ["10.0.0.0/8"],
        "subnetRoutes": [],
        "tags": [],
        "ephemeral": false,
        "os": "linux",
        "osVersion": "6.12",
        "clientVersion": "1.80.0",
        "homeDerp": null,
        "endpoints": [],
    });
    assert_eq!(list, json!({ "nodes": [expected] }));
    assert_eq!(server.get("/node/1").await, json!({ "node": expected }));
    assert_eq!(server.get("/node/joes-laptop").await, json!({ "node": expected }));
}

#[tokio::test]
async fn a_tagged_node_has_the_same_user_in_every_answer() {
    let server = server_with_node().await;
    let tagged = server.post("/node/1/tags", r#"{"tags":["tag:b","tag:a","tag:b"]}"#).await;
    assert_eq!(tagged["node"]["tags"], json!(["tag:a", "tag:b"]));
    assert_eq!(tagged["node"]["user"]["id"], "2147455555");
    assert_eq!(tagged["node"]["user"]["name"], "tagged-devices");
    assert_eq!(tagged["node"]["user"]["createdAt"], "0001-01-01T00:00:00Z");
    assert_eq!(server.get("/node/1").await, tagged);
    assert_eq!(server.get("/node").await["nodes"][0], tagged["node"]);
}

#[tokio::test]
async fn nodes_are_listed_by_id_and_by_user() {
    let server = server_with_node().await;
    server.with_user("bob").await;
    for number in 2..=11 {
        server.with_node(&format!("node-{number}"), if number == 5 { "bob" } else { "1" }).await;
    }
    let ids = async |query: &str| {
        let nodes = server.get(&format!("/node{query}")).await;
        let ids = nodes["nodes"].as_array().unwrap().iter();
        ids.map(|node| node["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ids("").await, "1 2 3 4 5 6 7 8 9 10 11");
    assert_eq!(ids("?user=bob").await, "5");
    assert_eq!(ids("?user=2").await, "5");
    server.refused(Method::GET, "/node?user=carol", "", 404).await;
}

#[tokio::test]
async fn a_nodes_expiry_is_set_and_cleared() {
    let server = server_with_node().await;
    server.advance(SignedDuration::from_secs(5));
    let expiry =
        async |body: &str| server.post("/node/1/expire", body).await["node"]["expiry"].clone();
    assert_eq!(expiry("").await, "2026-01-01T00:00:05Z");
    assert_eq!(expiry(r#"{"expiry":null}"#).await, "2026-01-01T00:00:05Z");
    assert_eq!(expiry(r#"{"expiry":"0001-01-01T00:00:00Z"}"#).await, "2026-01-01T00:00:05Z");
    assert_eq!(
        expiry(r#"{"expiry":"2030-01-01T02:00:00.1239+02:00"}"#).await,
        "2030-01-01T00:00:00.123Z"
    );
    assert_eq!(expiry(r#"{"disableExpiry":true}"#).await, Value::Null);
    let both = r#"{"disableExpiry":true,"expiry":"2030-01-01T00:00:00Z"}"#;
    server.refused(Method::POST, "/node/1/expire", both, 400).await;
    let detail = server.refused(Method::POST, "/node/1/expire", r#"{"expiry":"soon"}"#, 422).await;
    assert!(detail.contains("RFC 3339"), "{detail}");
}

#[tokio::test]
async fn a_node_is_renamed_to_a_free_label() {
    let server = server_with_node().await;
    server.with_node("other", "alice").await;
    let renamed = server.post("/node/1/rename/web-1", "").await;
    assert_eq!(renamed["node"]["givenName"], "web-1");
    assert_eq!(renamed["node"]["name"], "Joe's Laptop");
    server.refused(Method::POST, "/node/1/rename/other", "", 400).await;
    server.refused(Method::POST, "/node/1/rename/Web", "", 400).await;
    server.refused(Method::POST, "/node/1/rename/..%2fx", "", 400).await;
    server.refused(Method::POST, "/node/9/rename/x", "", 404).await;
}

#[tokio::test]
async fn tags_are_checked() {
    let server = server_with_node().await;
    server.refused(Method::POST, "/node/1/tags", r#"{"tags":[]}"#, 400).await;
    server.refused(Method::POST, "/node/1/tags", r#"{"tags":null}"#, 400).await;
    let detail = server.refused(Method::POST, "/node/1/tags", r#"{"tags":["web"]}"#, 400).await;
    assert!(detail.contains("`web` is not a tag"), "{detail}");
    server.refused(Method::POST, "/node/9/tags", r#"{"tags":["tag:a"]}"#, 404).await;
}

#[tokio::test]
async fn routes_are_replaced_and_serve_once_they_are_offered() {
    let server = server_with_node().await;
    let body = r#"{"routes":["192.168.0.7/16","10.0.0.0/8"]}"#;
    let approved = server.post("/node/1/approve_routes", body).await;
    assert_eq!(approved["node"]["approvedRoutes"], json!(["10.0.0.0/8", "192.168.0.0/16"]));
    assert_eq!(approved["node"]["subnetRoutes"], json!([]), "who is offline carries nothing");
    connect(&server).await;
    let serving = &server.get("/node/1").await["node"];
    assert_eq!(serving["availableRoutes"], json!(["10.0.0.0/8"]));
    assert_eq!(serving["subnetRoutes"], json!(["10.0.0.0/8"]));
    let exit = server.post("/node/1/approve_routes", r#"{"routes":["0.0.0.0/0"]}"#).await;
    assert_eq!(exit["node"]["approvedRoutes"], json!(["0.0.0.0/0", "::/0"]));
    let none = server.post("/node/1/approve_routes", r#"{"routes":[]}"#).await;
    assert_eq!(none["node"]["approvedRoutes"], json!([]));
    server.refused(Method::POST, "/node/1/approve_routes", r#"{"routes":["10"]}"#, 400).await;
}

/// Has the client of the one node open its stream.
async fn connect(server: &Server) {
    let node = server.store().snapshot().tailnet.nodes().next().unwrap().clone();
    let connect = Command::Connect {
        node: node.id,
        node_key: node.node_key,
        disco_key: mesh_keys::DiscoPublic::from_bytes([7; 32]),
    };
    server.store().submit(connect).await.unwrap();
}

#[tokio::test]
async fn a_node_with_a_stream_is_online() {
    let server = server_with_node().await;
    connect(&server).await;
    assert_eq!(server.get("/node/1").await["node"]["online"], true);
}

#[tokio::test]
async fn a_deleted_node_is_gone() {
    let server = server_with_node().await;
    assert_eq!(server.delete("/node/joes-laptop").await, json!({}));
    server.refused(Method::GET, "/node/1", "", 404).await;
    server.refused(Method::DELETE, "/node/1", "", 404).await;
}
