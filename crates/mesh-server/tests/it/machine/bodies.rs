//! Bodies that are too long, too slow, or nothing that was asked for.

use std::convert::Infallible;

use ::http::{Method, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use mesh_client::ControlClient;
use mesh_testkit::node_key;

use crate::channel::{self, Body, Forwarded};
use crate::server::{TestServer, register_request, within};

/// Paths with the longest body that each takes.
const PATHS: [(Method, &str, usize); 7] = [
    (Method::POST, "/machine/register", 64 << 10),
    (Method::POST, "/machine/map", 256 << 10),
    (Method::POST, "/machine/update-health", 64 << 10),
    (Method::POST, "/machine/feature/query", 64 << 10),
    (Method::PATCH, "/machine/set-device-attr", 64 << 10),
    (Method::POST, "/machine/audit-log", 64 << 10),
    (Method::POST, "/machine/c2n", 64 << 10),
];

async fn status(client: &ControlClient, method: &Method, path: &str, body: String) -> StatusCode {
    within(client.request(method.clone(), path, body)).await.unwrap().status()
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused() {
    let server = TestServer::start().await;
    let client = server.client(1).await;
    for (method, path, bytes_max) in &PATHS {
        let fits = status(&client, method, path, " ".repeat(*bytes_max)).await;
        assert_ne!(fits, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        let longer = status(&client, method, path, " ".repeat(bytes_max + 1)).await;
        assert_eq!(longer, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        let huge = status(&client, method, path, " ".repeat(8 << 20)).await;
        assert_eq!(huge, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
    }
    assert!(!client.is_closed());
}

/// Some bytes, and no end.
fn endless() -> Body {
    let beginning = Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"{\"Version\":145,")));
    let frames = stream::iter([beginning]).chain(stream::pending());
    StreamBody::new(frames).boxed_unsync()
}

#[tokio::test]
async fn a_body_that_does_not_end_is_cut_off() {
    let server = TestServer::start().await;
    let mut client = Forwarded::over(channel::open(&server, 1, "").await).await;
    assert_eq!(client.post("/machine/c2n", String::new()).await.0, StatusCode::OK);
    tokio::time::pause();
    for (method, path, _) in PATHS {
        if method == Method::POST {
            let (status, _) = client.post_body(path, endless()).await;
            assert_eq!(status, StatusCode::REQUEST_TIMEOUT, "{path}");
        }
    }
    assert_eq!(client.post("/machine/c2n", String::new()).await.0, StatusCode::OK);
}

/// JSON that is five thousand levels deep.
fn deep(open: &str, close: &str) -> String {
    format!("{}{}", open.repeat(5000), close.repeat(5000))
}

#[tokio::test]
async fn a_body_that_is_something_else_is_malformed() {
    let server = TestServer::start().await;
    server.join(1).await;
    let client = server.client(1).await;
    let key = node_key(1);
    let wrong = [
        String::new(),
        "[]".to_owned(),
        "7".to_owned(),
        "{".to_owned(),
        "{}{}".to_owned(),
        "\u{0}".to_owned(),
        deep("[", "]"),
        deep(r#"{"Hostinfo":"#, "}"),
        format!(r#"{{"NodeKey":"{key}""#),
        r#"{"NodeKey":7}"#.to_owned(),
        r#"{"NodeKey":"nodekey:12"}"#.to_owned(),
        format!(r#"{{"NodeKey":"{}"}}"#, key.to_string().replace("nodekey:", "mkey:")),
        r#"{"NodeKey":["x"]}"#.to_owned(),
    ];
    for (method, path, _) in &PATHS[..6] {
        for body in &wrong {
            let status = status(&client, method, path, body.clone()).await;
            let shown: String = body.chars().take(60).collect();
            assert_eq!(status, StatusCode::BAD_REQUEST, "{path} {shown}");
        }
    }
}

#[tokio::test]
async fn a_field_that_nobody_reads_may_be_as_deep_as_it_likes() {
    let server = TestServer::start().await;
    let client = server.client(1).await;
    let (key, deep) = (node_key(1), deep("[", "]"));
    let body = format!(r#"{{"Version":145,"Later":{deep},"NodeKey":"{key}"}}"#);
    assert_eq!(status(&client, &Method::POST, "/machine/register", body).await, StatusCode::OK);
    assert_eq!(server.store.snapshot().logins.len(), 1);
}

#[tokio::test]
async fn fields_of_another_type_are_malformed() {
    let server = TestServer::start().await;
    let client = server.client(1).await;
    let register = serde_json::to_value(register_request(1, "x")).unwrap();
    for (field, value) in [
        ("Version", "\"145\""),
        ("Version", "-1"),
        ("Version", "1e99"),
        ("OldNodeKey", "{}"),
        ("Auth", "7"),
        ("Auth", r#"{"AuthKey":7}"#),
        ("Expiry", "\"tomorrow\""),
        ("Followup", "[]"),
        ("Hostinfo", "\"x\""),
        ("Hostinfo", r#"{"Hostname":{}}"#),
        ("Ephemeral", "\"yes\""),
    ] {
        let mut body = register.clone();
        body[field] = serde_json::from_str(value).unwrap_or_else(|_| panic!("{value}"));
        let status = status(&client, &Method::POST, "/machine/register", body.to_string()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{field}: {value}");
    }
    assert!(server.store.snapshot().logins.is_empty());
}

#[tokio::test]
async fn a_hostinfo_full_of_everything_costs_little() {
    let server = TestServer::start().await;
    let key = server.preauth_key(|key| key).await;
    let client = server.client(1).await;
    let mut body = serde_json::to_value(register_request(1, &key)).unwrap();
    body["Hostinfo"] = serde_json::json!({
        "Hostname": "\u{0}\u{1}\"\\\n\u{202e}\u{fffd}".repeat(500),
        "OS": "x".repeat(2000),
        "Services": vec![serde_json::json!({"Proto": "tcp", "Port": 1, "Description": "d"}); 500],
        "RoutableIPs": vec!["10.0.0.0/8"; 500],
        "RequestTags": [],
    });
    let answer = client.post_raw("/machine/register", body.to_string()).await.unwrap();
    let response: mesh_wire::RegisterResponse = serde_json::from_slice(answer.body()).unwrap();
    assert!(response.machine_authorized, "{response:?}");
    let node = server.node(1).unwrap();
    assert!(node.given_name.len() <= 63 && node.hostinfo.hostname.len() <= 256);
    assert_eq!((node.hostinfo.os.len(), node.hostinfo.routable_ips.len()), (256, 1));
    assert!(!node.hostinfo.hostname.contains(['"', '\\', '\n', '\u{0}']));
}
