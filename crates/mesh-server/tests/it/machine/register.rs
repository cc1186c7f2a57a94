use std::time::Duration;

use ::http::{Method, StatusCode};
use mesh_client::{ControlClient, RequestError};
use mesh_keys::NodePublic;
use mesh_model::PreauthKeyId;
use mesh_state::{Command, NewPreauthKey};
use mesh_testkit::{at, node_key};
use mesh_wire::{CapabilityVersion, RegisterRequest, RegisterResponse};
use serde_json::Value;

use crate::server::{TestServer, register_request};

/// Sends a request that must be refused in words, in the form that the Rust client reads as well.
async fn refusal(client: &ControlClient, request: &RegisterRequest) -> String {
    let body = serde_json::to_vec(request).unwrap();
    let answer = client.post_raw("/machine/register", body).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let json: Value = serde_json::from_slice(answer.body()).unwrap();
    for field in ["NodeKeyExpired", "MachineAuthorized"] {
        assert_eq!(json[field], false, "{json}");
    }
    for field in ["AuthURL", "NodeKeySignature"] {
        assert!(json[field] == "" || json[field].is_null() && json.get(field).is_some(), "{json}");
    }
    assert!(json["User"]["ID"].is_number() && json["Login"]["ID"].is_number(), "{json}");
    for field in ["Provider", "LoginName", "DisplayName"] {
        assert!(json["Login"][field].is_string(), "{json}");
    }
    json["Error"].as_str().unwrap().to_owned()
}

async fn check_refused(server: &TestServer, request: &RegisterRequest, why: &str) {
    let error = refusal(&server.client(1).await, request).await;
    assert!(error.contains(why), "{error}");
    assert!(server.node(1).is_none() && server.store.snapshot().logins.is_empty());
}

#[tokio::test]
async fn a_node_registers_with_a_key() {
    let server = TestServer::start().await;
    let key = server.preauth_key(|key| key).await;
    let client = server.client(1).await;
    let response = client.register(&register_request(1, &key)).await.unwrap();
    let user = server.user().await;
    assert!(response.machine_authorized && !response.node_key_expired);
    assert_eq!((&*response.error, &*response.auth_url), ("", ""));
    assert_eq!(response.user.id.0, user.id.0);
    assert_eq!(response.login.login_name, "ada");
    let node = server.node(1).unwrap();
    assert_eq!((&*node.given_name, &*node.hostinfo.os), ("machine-1", "linux"));
    assert!(node.ipv4.is_some() && node.ipv6.is_some());
}

#[tokio::test]
async fn a_key_that_is_none_of_ours_is_refused() {
    let server = TestServer::start().await;
    let key = server.preauth_key(|key| key).await;
    let flipped =
        format!("{}{}", &key[..key.len() - 1], if key.ends_with('a') { 'b' } else { 'a' });
    let api_key = key.replace("tskey-auth-", "tskey-api-");
    for wrong in [&*flipped, &api_key, "tskey-auth-x", "x", "\u{0}", &"k".repeat(10_000)] {
        check_refused(&server, &register_request(1, wrong), "invalid auth key").await;
    }
}

#[tokio::test]
async fn a_key_that_was_used_is_refused() {
    let server = TestServer::start().await;
    let key = server.preauth_key(|key| key).await;
    server.client(2).await.register(&register_request(2, &key)).await.unwrap();
    check_refused(&server, &register_request(1, &key), "already used").await;
}

#[tokio::test]
async fn a_key_that_ran_out_is_refused() {
    let server = TestServer::start().await;
    let expires_at = Some(at(60));
    let key = server.preauth_key(|key| NewPreauthKey { expires_at, ..key }).await;
    server.clock.advance(Duration::from_mins(1));
    check_refused(&server, &register_request(1, &key), "expired at").await;
}

#[tokio::test]
async fn a_key_that_was_revoked_is_refused() {
    let server = TestServer::start().await;
    let key = server.preauth_key(|key| key).await;
    server.submit(Command::RevokePreauthKey { key: PreauthKeyId(1) }).await;
    check_refused(&server, &register_request(1, &key), "revoked").await;
    server.submit(Command::DeletePreauthKey { key: PreauthKeyId(1) }).await;
    check_refused(&server, &register_request(1, &key), "invalid auth key").await;
}

#[tokio::test]
async fn an_old_client_is_told_to_update() {
    let server = TestServer::start().await;
    let key = server.preauth_key(|key| key).await;
    for version in [0, 1, 112] {
        let version = CapabilityVersion(version);
        let request = RegisterRequest { version, ..register_request(1, &key) };
        check_refused(&server, &request, "too old").await;
    }
    for version in [113, 130, 60_000] {
        let version = CapabilityVersion(version);
        let request = RegisterRequest { version, ..register_request(1, &key) };
        let response = server.client(1).await.register(&request).await.unwrap();
        assert!(response.machine_authorized, "{version}");
    }
}

#[tokio::test]
async fn a_request_without_a_node_key_is_malformed() {
    let server = TestServer::start().await;
    let key = server.preauth_key(|key| key).await;
    let request = RegisterRequest { node_key: NodePublic::default(), ..register_request(1, &key) };
    let error = server.client(1).await.register(&request).await.unwrap_err();
    let RequestError::Status { status, .. } = error else { panic!("{error:?}") };
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(server.store.snapshot().tailnet.node_count(), 0);
}

#[tokio::test]
async fn another_machines_node_key_is_refused_whatever_comes_with_it() {
    let server = TestServer::start().await;
    server.join(1).await;
    let before = server.node(1).unwrap();
    let key = server.preauth_key(|key| key).await;
    let thief = server.client(2).await;
    let logout = RegisterRequest { expiry: Some(at(-1)), ..register_request(1, "") };
    for request in [register_request(1, &key), register_request(1, ""), logout] {
        assert!(refusal(&thief, &request).await.contains("in use by another machine"));
    }
    // Nor does it help to claim the key as one's own former one.
    let old_node_key = node_key(1);
    let request = RegisterRequest { old_node_key, ..register_request(2, &key) };
    assert!(thief.register(&request).await.unwrap().machine_authorized);
    assert_eq!(server.node(1).unwrap(), before);
    assert_ne!(server.node(2).unwrap().id, before.id);
}

#[tokio::test]
async fn a_registered_client_comes_back_with_a_spent_key() {
    let server = TestServer::start().await;
    let expires_at = Some(at(60));
    let key = server.preauth_key(|key| NewPreauthKey { expires_at, ..key }).await;
    let client = server.client(1).await;
    for seconds in [0, 30, 60] {
        server.clock.advance(Duration::from_secs(seconds));
        let response = client.register(&register_request(1, &key)).await.unwrap();
        assert!(response.machine_authorized, "{}", response.error);
    }
    server.submit(Command::DeletePreauthKey { key: PreauthKeyId(1) }).await;
    let response = client.register(&register_request(1, &key)).await.unwrap();
    assert!(response.machine_authorized, "{}", response.error);
    assert_eq!(server.store.snapshot().tailnet.node_count(), 1);
}

#[tokio::test]
async fn a_node_rotates_its_key_and_stays_the_same() {
    let server = TestServer::start().await;
    let client = server.join(1).await;
    let before = server.node(1).unwrap();
    let key = server.preauth_key(|key| key).await;
    let request = RegisterRequest { old_node_key: node_key(1), ..register_request(9, &key) };
    assert!(client.register(&request).await.unwrap().machine_authorized);
    let after = server.node(9).unwrap();
    assert_eq!((after.id, after.ipv4, after.ipv6), (before.id, before.ipv4, before.ipv6));
    assert!(server.node(1).is_none());
}

#[tokio::test]
async fn a_node_logs_out_even_with_a_key_that_is_gone() {
    let server = TestServer::start().await;
    let client = server.join(1).await;
    let key = server.preauth_key(|key| key).await;
    server.submit(Command::DeletePreauthKey { key: PreauthKeyId(2) }).await;
    let logout = RegisterRequest { expiry: Some(at(-60)), ..register_request(1, &key) };
    // The second time the node is logged out already.
    for _ in 0..2 {
        let response = client.register(&logout).await.unwrap();
        assert_eq!((&*response.error, response.machine_authorized), ("", false));
        assert!(server.node(1).unwrap().is_expired(at(0)));
    }
    let back = client.register(&register_request(1, "")).await.unwrap();
    assert!(back.node_key_expired && !back.machine_authorized);
}

#[tokio::test]
async fn a_client_may_shorten_its_life_but_not_lengthen_it() {
    let server = TestServer::start().await;
    let client = server.join(1).await;
    let expiring =
        |seconds| RegisterRequest { expiry: Some(at(seconds)), ..register_request(1, "") };
    assert!(client.register(&expiring(600)).await.unwrap().machine_authorized);
    assert_eq!(server.node(1).unwrap().expires_at, Some(at(600)));
    assert!(refusal(&client, &expiring(601)).await.contains("extending key"));
    assert_eq!(server.node(1).unwrap().expires_at, Some(at(600)));
}

#[tokio::test]
async fn one_key_for_one_node_has_one_winner() {
    let server = TestServer::start().await;
    let key = server.preauth_key(|key| key).await;
    let clients = (1..=32).map(async |machine| {
        let client = server.client(machine).await;
        client.register(&register_request(machine, &key)).await.unwrap()
    });
    let answers: Vec<RegisterResponse> = futures_util::future::join_all(clients).await;
    let (winners, losers): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.machine_authorized);
    assert_eq!((winners.len(), server.store.snapshot().tailnet.node_count()), (1, 1));
    assert!(losers.iter().all(|answer| answer.error.contains("already used")));
}

#[tokio::test]
async fn nothing_is_registered_while_the_database_is_away() {
    let server = TestServer::start().await;
    server.expect_alarm("the database does not take changes");
    let key = server.preauth_key(|key| key).await;
    let client = server.client(1).await;
    server.database.set_down(true);
    let error = client.register(&register_request(1, &key)).await.unwrap_err();
    let RequestError::Status { status, .. } = error else { panic!("{error:?}") };
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(server.node(1).is_none());
    server.database.set_down(false);
    assert!(client.register(&register_request(1, &key)).await.unwrap().machine_authorized);
}

#[tokio::test]
async fn keys_are_read_in_any_case_and_unknown_ones_passed_over() {
    let server = TestServer::start().await;
    let key = server.preauth_key(|key| key).await;
    let body = format!(
        r#"{{"version":145,"NODEKEY":"{}","auth":{{"authkey":"{key}"}},"Hostinfo":null,"Later":[{{}}]}}"#,
        node_key(1)
    );
    let answer = server.client(1).await.post_raw("/machine/register", body).await.unwrap();
    let response: RegisterResponse = serde_json::from_slice(answer.body()).unwrap();
    assert!(response.machine_authorized, "{response:?}");
}

#[tokio::test]
async fn it_is_posted_to() {
    let server = TestServer::start().await;
    let client = server.client(1).await;
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let answer = client.request(method, "/machine/register", "{}").await.unwrap();
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
