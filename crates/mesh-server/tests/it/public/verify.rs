use std::time::Duration;

use mesh_state::Command;
use mesh_testkit::{at, node_key};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::http::{self, Answer};
use crate::server::TestServer;

fn post(body: &str) -> String {
    let length = body.len();
    format!("POST /verify HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}")
}

async fn verify(server: &TestServer, body: &str) -> Answer {
    server.ask(&post(body)).await
}

#[tokio::test]
async fn a_relay_is_to_serve_our_nodes_only() {
    let server = TestServer::start().await;
    server.join(1).await;
    let ask = async |number: u64| {
        let body = json!({ "NodePublic": node_key(number), "Source": "192.0.2.1" }).to_string();
        verify(&server, &body).await.json()
    };
    assert_eq!(ask(1).await, json!({ "Allow": true }));
    assert_eq!(ask(2).await, json!({ "Allow": false }));
    let node = server.node(1).unwrap().id;
    server.submit(Command::SetNodeExpiry { node, expires_at: Some(at(60)) }).await;
    assert_eq!(ask(1).await, json!({ "Allow": true }));
    server.clock.advance(Duration::from_mins(1));
    assert_eq!(ask(1).await, json!({ "Allow": false }));
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let server = TestServer::start().await;
    for body in ["", "{", "[]", r#"{"NodePublic":7}"#, r#"{"NodePublic":"nodekey:12"}"#] {
        assert_eq!(verify(&server, body).await.status, 400, "{body}");
    }
    assert_eq!(verify(&server, &" ".repeat(4097)).await.status, 413);
    // Without a key nobody is meant.
    assert_eq!(verify(&server, "{}").await.json(), json!({ "Allow": false }));
}

#[tokio::test]
async fn a_question_that_does_not_end_is_cut_off() {
    let server = TestServer::start().await;
    let mut stream = server.connect().await;
    let request = post(&" ".repeat(100));
    stream.write_all(&request.as_bytes()[..request.len() - 1]).await.unwrap();
    server.until(|server| server.connections() == 2).await;
    tokio::time::pause();
    assert_eq!(http::answer(&mut stream).await.status, 408);
}
