//! What is refused before anybody looks at its meaning, and what happens without a database.

use axum::http::Method;

use super::{BODY_BYTES_MAX, Server};

#[tokio::test]
async fn unknown_routes_and_methods_are_problems() {
    let server = Server::start();
    for path in ["", "/", "/nope", "/node/1/nope", "/policies"] {
        server.refused(Method::GET, path, "", 404).await;
    }
    server.refused(Method::PUT, "/user", "{}", 405).await;
    server.refused(Method::GET, "/user/%ff", "", 405).await;
    server.refused(Method::DELETE, "/user/%ff", "", 400).await;
}

#[tokio::test]
async fn bodies_that_are_not_what_is_wanted_are_refused() {
    let server = Server::start();
    for body in ["{", "nope", "{} {}", "\u{0}"] {
        let detail = server.refused(Method::POST, "/user", body, 400).await;
        assert!(detail.starts_with("the body is not JSON"), "{detail}");
    }
    let deep = "[".repeat(BODY_BYTES_MAX);
    for body in ["[]", " []", "3", r#"{"name":3}"#, r#"{"name":["a"]}"#, &deep] {
        server.refused(Method::POST, "/user", body, 422).await;
    }
    let answer = server.ask(Method::POST, "/preauthkey", r#"{"aclTags":["tag:a",1]}"#).await;
    assert_eq!(answer.json["errors"][0]["location"], "body.aclTags[1]");
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused() {
    let server = Server::start();
    let body = |length: usize| format!(r#"{{"name":"alice"{}}}"#, " ".repeat(length - 16));
    server.post("/user", &body(BODY_BYTES_MAX)).await;
    server.refused(Method::POST, "/user", &body(BODY_BYTES_MAX + 1), 413).await;
}

#[tokio::test]
async fn without_a_database_reads_work_and_changes_are_refused() {
    let server = Server::start();
    server.with_user("alice").await;
    assert_eq!(server.get("/health").await["databaseConnectivity"], true);
    server.take_database_away();
    server.refused(Method::GET, "/health", "", 500).await;
    server.refused(Method::POST, "/user", r#"{"name":"bob"}"#, 503).await;
    let users = server.get("/user").await;
    assert_eq!(users["users"].as_array().unwrap().len(), 1, "what is not on disk is not there");
}
