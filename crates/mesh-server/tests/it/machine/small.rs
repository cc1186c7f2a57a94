use ::http::{Method, StatusCode};
use mesh_testkit::node_key;
use mesh_wire::QueryFeatureResponse;

use crate::server::{TestServer, machine_private};

/// A request with the key of node 1, whose status must be this; gives the body.
async fn check(server: &TestServer, method: Method, path: &str, status: u16, more: &str) -> String {
    let client = server.client(1).await;
    let body = format!(r#"{{"Version":145,"NodeKey":"{}"{more}}}"#, node_key(1));
    let answer = client.request(method, path, body).await.unwrap();
    assert_eq!(answer.status().as_u16(), status, "{path}: {answer:?}");
    String::from_utf8(answer.body().to_vec()).unwrap()
}

#[tokio::test]
async fn what_clients_report_is_taken() {
    let server = TestServer::start().await;
    server.join(1).await;
    let (post, patch) = (Method::POST, Method::PATCH);
    let health = r#","Subsys":"router","Error":"ill""#;
    assert_eq!(check(&server, post.clone(), "/machine/update-health", 204, health).await, "");
    let attributes = r#","Update":{"a:b":1,"c:d":null}"#;
    check(&server, patch, "/machine/set-device-attr", 200, attributes).await;
    let audit = r#","Action":"DISCONNECT_NODE","Details":"lunch""#;
    check(&server, post.clone(), "/machine/audit-log", 200, audit).await;
    check(&server, post, "/machine/c2n", 200, "").await;
}

#[tokio::test]
async fn a_feature_that_is_not_here_is_explained() {
    let server = TestServer::start().await;
    server.join(1).await;
    for (feature, text) in [("serve", "HTTPS"), ("funnel", "Funnel"), ("x", "not offered")] {
        let more = format!(r#","Feature":"{feature}""#);
        let body = check(&server, Method::POST, "/machine/feature/query", 200, &more).await;
        let answer: QueryFeatureResponse = serde_json::from_str(&body).unwrap();
        assert!(!answer.complete && !answer.should_wait && answer.text.contains(text), "{body}");
    }
}

#[tokio::test]
async fn who_asks_is_told_who_it_is() {
    let server = TestServer::start().await;
    let body = check(&server, Method::GET, "/machine/whoami", 200, "").await;
    assert!(body.contains(&machine_private(1).public().to_string()) && body.contains("145"));
}

#[tokio::test]
async fn features_that_are_not_here_have_a_text() {
    let server = TestServer::start().await;
    server.join(1).await;
    for (method, path) in [
        (Method::POST, "/machine/set-dns"),
        (Method::POST, "/machine/id-token"),
        (Method::POST, "/machine/webclient/init/1/to/2"),
        (Method::GET, "/machine/tka/bootstrap"),
        (Method::GET, "/machine/ssh/action/1"),
    ] {
        let body = check(&server, method, path, 501, "").await;
        assert!(body.contains("not offered"), "{path}: {body}");
    }
}

#[tokio::test]
async fn unknown_paths_are_not_found() {
    let server = TestServer::start().await;
    let client = server.client(1).await;
    for path in
        ["/", "/machine", "/machine/", "/machine/x", "/key", "/api/v1/node", "/machine//map"]
    {
        let answer = client.request(Method::POST, path, "").await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
    }
}
