use axum::http::Method;
use serde_json::{Value, json};

use crate::api::Server;

#[tokio::test]
async fn a_key_is_made_listed_ended_and_deleted() {
    let server = Server::start();
    let made = server.post("/apikey", r#"{"expiration":"2026-04-01T00:00:00Z"}"#).await;
    let key = made["apiKey"].as_str().unwrap();
    let masked = format!("{}-***", &key[..key.len() - 53]);
    let expected = |expiration: &str| {
        json!({ "apiKeys": [{
            "id": "1",
            "prefix": masked,
            "expiration": expiration,
            "createdAt": "2026-01-01T00:00:00Z",
            "lastSeen": null,
        }] })
    };
    assert_eq!(server.get("/apikey").await, expected("2026-04-01T00:00:00Z"));
    assert_eq!(server.post("/apikey/expire", r#"{"id":"1"}"#).await, json!({}));
    assert_eq!(server.get("/apikey").await, expected("2026-01-01T00:00:00Z"));
    assert_eq!(server.delete("/apikey?id=1").await, json!({}));
    assert_eq!(server.get("/apikey").await, json!({ "apiKeys": [] }));
}

#[tokio::test]
async fn a_key_is_named_by_id_or_prefix() {
    let server = Server::start();
    let key = server.post("/apikey", "").await["apiKey"].as_str().unwrap().to_owned();
    let masked = format!("{}-***", &key[..key.len() - 53]);
    let bare = masked.strip_prefix("tskey-api-").unwrap().strip_suffix("-***").unwrap();
    assert_eq!(server.get("/apikey").await["apiKeys"][0]["expiration"], Value::Null);
    let expire = async |body: &str, status| {
        server.refused(Method::POST, "/apikey/expire", body, status).await
    };
    for body in ["", r#"{"id":"0"}"#, &format!(r#"{{"id":"1","prefix":"{masked}"}}"#)] {
        expire(body, 400).await;
    }
    expire(r#"{"id":"x"}"#, 400).await;
    expire(r#"{"prefix":"nope"}"#, 404).await;
    server.post("/apikey/expire", &format!(r#"{{"prefix":"{masked}"}}"#)).await;
    server.post("/apikey/expire", &format!(r#"{{"id":"0","prefix":"{bare}"}}"#)).await;
    server.refused(Method::DELETE, "/apikey/nope", "", 404).await;
    server.refused(Method::DELETE, &format!("/apikey/{masked}?id=1"), "", 400).await;
    server.delete(&format!("/apikey/{masked}")).await;
}
