use axum::http::Method;
use serde_json::json;

use crate::api::Server;

#[tokio::test]
async fn a_user_is_made_shown_renamed_and_deleted() {
    let server = Server::start();
    assert_eq!(server.get("/user").await, json!({ "users": [] }));
    let body = r#"{"name":"alice","displayName":"Alice","email":"a@example.com","pictureUrl":"https://example.com/a.png","unknown":1}"#;
    let made = server.post("/user", body).await;
    let alice = json!({
        "id": "1",
        "name": "alice",
        "createdAt": "2026-01-01T00:00:00Z",
        "displayName": "Alice",
        "email": "a@example.com",
        "providerId": "",
        "provider": "",
        "profilePicUrl": "https://example.com/a.png",
    });
    assert_eq!(made, json!({ "user": alice }));
    assert_eq!(server.get("/user").await, json!({ "users": [alice] }));
    let renamed = server.post("/user/1/rename/alicia", "").await;
    assert_eq!(renamed["user"]["name"], "alicia");
    assert_eq!(renamed["user"]["email"], "a@example.com");
    assert_eq!(server.delete("/user/1").await, json!({}));
    assert_eq!(server.get("/user").await, json!({ "users": [] }));
}

#[tokio::test]
async fn users_are_found_by_one_filter() {
    let server = Server::start();
    for name in ["zoe", "alice", "bob"] {
        server.with_user(name).await;
    }
    let ids = async |query: &str| {
        let users = server.get(&format!("/user{query}")).await;
        let ids = users["users"].as_array().unwrap().iter();
        ids.map(|user| user["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ids("").await, "1 2 3");
    assert_eq!(ids("?id=&name=&email=").await, "1 2 3");
    assert_eq!(ids("?name=alice").await, "2");
    assert_eq!(ids("?id=3").await, "3");
    assert_eq!(ids("?id=3&name=alice").await, "2");
    assert_eq!(ids("?email=nobody@example.com").await, "");
    server.refused(Method::GET, "/user?id=x", "", 400).await;
}

#[tokio::test]
async fn refusals_say_what_is_wrong() {
    let server = Server::start();
    server.with_user("alice").await;
    server.with_user("bob").await;
    server.refused(Method::POST, "/user", r#"{"name":"alice"}"#, 409).await;
    server.refused(Method::POST, "/user/1/rename/bob", "", 409).await;
    server.refused(Method::POST, "/user", r#"{"name":"1alice"}"#, 400).await;
    server.refused(Method::POST, "/user", "", 400).await;
    let long = format!(r#"{{"name":"carol","email":"{}"}}"#, "x".repeat(1025));
    server.refused(Method::POST, "/user", &long, 422).await;
    server.refused(Method::POST, "/user/9/rename/carol", "", 404).await;
    server.refused(Method::DELETE, "/user/carol", "", 404).await;
    server.with_node("laptop", "alice").await;
    let detail = server.refused(Method::DELETE, "/user/1", "", 400).await;
    assert!(detail.contains("still owns 1 nodes"), "{detail}");
    server.delete("/user/bob").await;
}
