//! One machine with the node key of another, at every door.

use ::http::{Method, StatusCode};
use mesh_testkit::node_key;
use mesh_wire::RegisterResponse;

use crate::server::TestServer;

/// Every request that names a node key, as path and what comes beside `Version` and `NodeKey`.
const DOORS: [(Method, &str, &str); 9] = [
    (Method::POST, "/machine/register", ""),
    (Method::POST, "/machine/register", r#","Expiry":"1970-01-01T00:02:03Z""#),
    (Method::POST, "/machine/map", r#","Stream":true"#),
    (Method::POST, "/machine/map", ""),
    (Method::POST, "/machine/map", r#","OmitPeers":true,"Endpoints":["192.0.2.66:1"]"#),
    (Method::POST, "/machine/update-health", r#","Subsys":"router","Error":"ill""#),
    (Method::POST, "/machine/feature/query", r#","Feature":"serve""#),
    (Method::PATCH, "/machine/set-device-attr", r#","Update":{"a:b":1}"#),
    (Method::POST, "/machine/audit-log", r#","Action":"DISCONNECT_NODE""#),
];

/// Goes through every door with a node key and expects this status, except at registration, where refusals
/// are in words.
async fn check_every_door(server: &TestServer, machine: u8, key: u64, status: StatusCode) {
    let client = server.client(machine).await;
    for (method, path, more) in DOORS {
        let body = format!(r#"{{"Version":145,"NodeKey":"{}"{more}}}"#, node_key(key));
        let answer = client.request(method, path, body).await.unwrap();
        if path == "/machine/register" {
            let response: RegisterResponse = serde_json::from_slice(answer.body()).unwrap();
            assert!(!response.machine_authorized && response.user.id.0 == 0, "{response:?}");
        } else {
            assert_eq!(answer.status(), status, "{path}{more}");
            let text = String::from_utf8_lossy(answer.body());
            assert!(!text.contains("ada") && !text.contains("100.64."), "{text}");
        }
    }
}

#[tokio::test]
async fn the_node_key_of_another_machine_opens_no_door() {
    let server = TestServer::start().await;
    server.join(1).await;
    let before = server.node(1).unwrap();
    check_every_door(&server, 2, 1, StatusCode::UNAUTHORIZED).await;
    assert_eq!(server.node(1).unwrap(), before);
    assert_eq!(server.store.snapshot().tailnet.node_count(), 1);
}

#[tokio::test]
async fn a_node_key_of_nobody_opens_no_door() {
    let server = TestServer::start().await;
    check_every_door(&server, 2, 1, StatusCode::NOT_FOUND).await;
    assert_eq!(server.store.snapshot().tailnet.node_count(), 0);
}
