use axum::http::Method;
use serde_json::{Value, json};

use crate::api::Server;

#[tokio::test]
async fn a_key_is_shown_whole_once() {
    let server = Server::start();
    server.with_user("alice").await;
    let body = r#"{"user":"1","reusable":true,"ephemeral":true,"expiration":"2026-02-01T00:00:00Z","aclTags":["tag:b","tag:a"]}"#;
    let made = server.post("/preauthkey", body).await;
    let key = made["preAuthKey"]["key"].as_str().unwrap().to_owned();
    assert_eq!(key.len(), "tskey-auth-".len() + 12 + 1 + 52);
    let expected = |key: &str| {
        json!({
            "user": {
                "id": "1",
                "name": "alice",
                "createdAt": "2026-01-01T00:00:00Z",
                "displayName": "",
                "email": "",
                "providerId": "",
                "provider": "",
                "profilePicUrl": "",
            },
            "id": "1",
            "key": key,
            "reusable": true,
            "ephemeral": true,
            "used": false,
            "expiration": "2026-02-01T00:00:00Z",
            "createdAt": "2026-01-01T00:00:00Z",
            "aclTags": ["tag:a", "tag:b"],
        })
    };
    assert_eq!(made, json!({ "preAuthKey": expected(&key) }));
    let masked = format!("{}-***", &key[..key.len() - 53]);
    assert_eq!(server.get("/preauthkey").await, json!({ "preAuthKeys": [expected(&masked)] }));
}

#[tokio::test]
async fn what_is_left_out_is_not_there() {
    let server = Server::start();
    server.with_user("alice").await;
    for body in [
        r#"{"user":"alice"}"#,
        r#"{"user":"1","expiration":null,"aclTags":null,"reusable":null,"ephemeral":null}"#,
        r#"{"user":"1","expiration":"0001-01-01T00:00:00Z"}"#,
    ] {
        let key = &server.post("/preauthkey", body).await["preAuthKey"];
        assert_eq!(key["expiration"], Value::Null, "no expiration is no expiry: {body}");
        assert_eq!(key["aclTags"], json!([]));
        assert_eq!(key["reusable"], false);
    }
    let tagged = server.post("/preauthkey", r#"{"user":"0","aclTags":["tag:a"]}"#).await;
    assert_eq!(tagged["preAuthKey"]["user"], Value::Null);
}

#[tokio::test]
async fn refusals_say_what_is_wrong() {
    let server = Server::start();
    server.with_user("alice").await;
    let create =
        async |body: &str, status| server.refused(Method::POST, "/preauthkey", body, status).await;
    let detail = create("{}", 400).await;
    assert!(detail.contains("a user or at least one tag"), "{detail}");
    create(r#"{"user":"bob"}"#, 404).await;
    create(r#"{"user":"7"}"#, 404).await;
    create(r#"{"user":"alice","aclTags":["a"]}"#, 400).await;
    create(r#"{"user":1}"#, 422).await;
    assert_eq!(server.get("/preauthkey").await, json!({ "preAuthKeys": [] }));
}

#[tokio::test]
async fn a_key_is_revoked_and_deleted() {
    let server = Server::start();
    server.with_user("alice").await;
    server.with_user("bob").await;
    for user in ["alice", "bob"] {
        server.post("/preauthkey", &format!(r#"{{"user":"{user}"}}"#)).await;
    }
    assert_eq!(server.post("/preauthkey/expire", r#"{"id":"1"}"#).await, json!({}));
    let keys = server.get("/preauthkey").await;
    assert_eq!(keys["preAuthKeys"][0]["expiration"], "2026-01-01T00:00:00Z");
    assert_eq!(keys["preAuthKeys"][1]["expiration"], Value::Null);
    let of_bob = server.get("/preauthkey?user=bob").await;
    assert_eq!(of_bob["preAuthKeys"].as_array().unwrap().len(), 1);
    assert_eq!(server.delete("/preauthkey?id=1").await, json!({}));
    server.refused(Method::DELETE, "/preauthkey?id=1", "", 404).await;
    server.refused(Method::DELETE, "/preauthkey", "", 400).await;
    server.refused(Method::POST, "/preauthkey/expire", r#"{"id":"9"}"#, 404).await;
    server.refused(Method::POST, "/preauthkey/expire", r#"{"id":"x"}"#, 400).await;
}
