use axum::http::Method;
use mesh_state::LoginState;

use crate::api::Server;

fn body(user: &str, auth_id: &impl ToString) -> String {
    format!(r#"{{"user":"{user}","authId":"{}"}}"#, auth_id.to_string())
}

#[tokio::test]
async fn a_login_becomes_a_node_of_the_user() {
    let server = Server::start();
    server.with_user("alice").await;
    server.with_user("bob").await;
    let auth_id = server.with_login("laptop").await;
    let node = server.post("/auth/register", &body("bob", &auth_id)).await;
    assert_eq!(node["node"]["user"]["name"], "bob");
    assert_eq!(node["node"]["registerMethod"], "REGISTER_METHOD_CLI");
    assert_eq!(node["node"]["preAuthKey"], serde_json::Value::Null);
    server.refused(Method::POST, "/auth/register", &body("bob", &auth_id), 404).await;
}

#[tokio::test]
async fn older_clients_register_by_query() {
    let server = Server::start();
    server.with_user("alice").await;
    let auth_id = server.with_login("laptop").await;
    let node = server.post(&format!("/node/register?user=alice&key={auth_id}"), "").await;
    assert_eq!(node["node"]["givenName"], "laptop");
}

#[tokio::test]
async fn approval_needs_a_user_only_if_there_are_several() {
    let server = Server::start();
    let auth_id = server.with_login("laptop").await;
    let detail = server.refused(Method::POST, "/auth/approve", &body("", &auth_id), 400).await;
    assert!(detail.contains("users create"), "{detail}");
    server.with_user("alice").await;
    server.post("/auth/approve", &body("", &auth_id)).await;
    assert_eq!(server.get("/node/1").await["node"]["user"]["name"], "alice");
    server.with_user("bob").await;
    let auth_id = server.with_login("phone").await;
    server.refused(Method::POST, "/auth/approve", &body("", &auth_id), 400).await;
    server.post("/auth/approve", &body("bob", &auth_id)).await;
}

#[tokio::test]
async fn a_login_is_turned_away() {
    let server = Server::start();
    server.with_user("alice").await;
    let auth_id = server.with_login("laptop").await;
    server.post("/auth/reject", &body("", &auth_id)).await;
    let snapshot = server.store().snapshot();
    assert_eq!(snapshot.logins.get(&auth_id).unwrap().state, LoginState::Rejected);
    server.refused(Method::POST, "/auth/approve", &body("alice", &auth_id), 404).await;
}

#[tokio::test]
async fn what_is_no_auth_id_is_refused() {
    let server = Server::start();
    server.with_user("alice").await;
    let unknown = mesh_model::AuthId::from_random([9; 20]);
    for path in ["/auth/register", "/auth/approve", "/auth/reject"] {
        server.refused(Method::POST, path, &body("alice", &"nope"), 400).await;
        server.refused(Method::POST, path, "", 400).await;
        server.refused(Method::POST, path, &body("alice", &unknown), 404).await;
    }
    let auth_id = server.with_login("laptop").await;
    server.refused(Method::POST, "/auth/register", &body("carol", &auth_id), 404).await;
}
