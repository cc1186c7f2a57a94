use serde_json::json;

use crate::server::{Setup, TestServer};

#[tokio::test]
async fn the_name_of_a_relay_is_looked_up() {
    let server = TestServer::start().await;
    let answer = server.get("/bootstrap-dns?q=localhost").await;
    assert_eq!(answer.header("connection"), "close");
    let addresses = answer.json()["localhost"].as_array().unwrap().clone();
    assert!(addresses.contains(&json!("127.0.0.1")) || addresses.contains(&json!("::1")));
}

#[tokio::test]
async fn our_own_name_is_looked_up() {
    let server = TestServer::start_as(Setup { host: "127.0.0.9", ..Setup::default() }).await;
    let answer = server.get("/bootstrap-dns?q=127.0.0.9").await;
    assert_eq!(answer.json(), json!({ "127.0.0.9": ["127.0.0.9"] }));
}

#[tokio::test]
async fn other_names_are_none_of_our_business() {
    let server = TestServer::start().await;
    for target in ["/bootstrap-dns", "/bootstrap-dns?q=", "/bootstrap-dns?q=example.com"] {
        let answer = server.get(target).await;
        assert_eq!((answer.status, answer.json()), (200, json!({})), "{target}");
    }
}
