//! Who may ask, on the public listener.

use axum::http::StatusCode;
use jiff::SignedDuration;
use serde_json::Value;

use super::Server;

async fn key_of(server: &Server, body: &str) -> String {
    let key = server.post("/apikey", body).await;
    format!("Bearer {}", key["apiKey"].as_str().unwrap())
}

#[tokio::test]
async fn an_api_key_opens_the_public_listener() {
    let mut server = Server::start();
    let key = key_of(&server, "").await;
    server.forget_keys();
    for _ in 0..3 {
        let answer = server.ask_publicly("192.0.2.1", Some(&key)).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    assert_eq!(server.hashes_computed(), 1);
    let lower_case = key.replace("Bearer", "bearer");
    let answer = server.ask_publicly("192.0.2.1", Some(&lower_case)).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn nothing_else_does() {
    let server = Server::start();
    let key = key_of(&server, "").await;
    let preauth = {
        server.with_user("alice").await;
        let key = server.post("/preauthkey", r#"{"user":"alice"}"#).await;
        format!("Bearer {}", key["preAuthKey"]["key"].as_str().unwrap())
    };
    let public_id = &key[..key.len() - 53];
    for authorization in [
        None,
        Some(""),
        Some("Bearer"),
        Some("Bearer "),
        Some("Bearer x"),
        Some(&*key.replace("Bearer", "Basic")),
        Some(&*format!("{key}x")),
        Some(public_id),
        Some(&*preauth),
    ] {
        let answer = server.ask_publicly("192.0.2.1", authorization).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{authorization:?}");
        assert_eq!(answer.content_type, "application/problem+json");
        assert_eq!(answer.json["code"], 16);
    }
}

#[tokio::test]
async fn a_key_closes_when_it_expires_or_goes_though_it_was_verified_before() {
    let server = Server::start();
    let expiring = key_of(&server, r#"{"expiration":"2026-01-01T01:00:00Z"}"#).await;
    let expired = key_of(&server, "").await;
    let deleted = key_of(&server, "").await;
    for key in [&expiring, &expired, &deleted] {
        let answer = server.ask_publicly("192.0.2.1", Some(key)).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    server.advance(SignedDuration::from_hours(1));
    server.post("/apikey/expire", r#"{"id":"2"}"#).await;
    server.delete("/apikey?id=3").await;
    for key in [&expiring, &expired, &deleted] {
        let answer = server.ask_publicly("192.0.2.1", Some(key)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn the_last_use_of_a_key_is_told_to_the_minute() {
    let server = Server::start();
    let key = key_of(&server, "").await;
    assert_eq!(server.get("/apikey").await["apiKeys"][0]["lastSeen"], Value::Null);
    for (seconds, seen) in
        [(0, "2026-01-01T00:00:00Z"), (59, "2026-01-01T00:00:00Z"), (1, "2026-01-01T00:01:00Z")]
    {
        server.advance(SignedDuration::from_secs(seconds));
        server.ask_publicly("192.0.2.1", Some(&key)).await;
        // What is waited for comes after what is not.
        server.with_user(&format!("after-{seconds}")).await;
        assert_eq!(server.get("/apikey").await["apiKeys"][0]["lastSeen"], seen);
    }
    let epoch = server.store().snapshot().epoch;
    server.ask_publicly("192.0.2.1", Some(&key)).await;
    server.with_user("last").await;
    assert_eq!(server.store().snapshot().epoch, epoch + 1, "one for the user, none for the key");
}

#[tokio::test]
async fn a_source_that_fails_too_often_waits_unless_its_key_is_known() {
    let mut server = Server::start();
    let known = key_of(&server, "").await;
    let fresh = key_of(&server, "").await;
    server.forget_keys();
    assert_eq!(server.ask_publicly("192.0.2.1", Some(&known)).await.status, StatusCode::OK);
    for _ in 0..10 {
        let answer = server.ask_publicly("192.0.2.1", Some("Bearer tskey-api-x")).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    let answer = server.ask_publicly("192.0.2.1", Some(&fresh)).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.retry_after.is_some_and(|seconds| (1..=60).contains(&seconds)));
    assert_eq!(server.ask_publicly("192.0.2.1", Some(&known)).await.status, StatusCode::OK);
    assert_eq!(server.ask_publicly("192.0.2.2", Some(&fresh)).await.status, StatusCode::OK);
}
