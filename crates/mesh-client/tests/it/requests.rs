use std::time::Duration;

use http::{Method, StatusCode};
use mesh_client::{BODY_BYTES_MAX, RequestError};
use mesh_keys::NodePrivate;
use mesh_wire::{MapRequest, RegisterAuth, RegisterRequest, SecretText};

use crate::fake_server::{FakeServer, Manners, VERSION, machine_key, ok, refusal};

fn register_request() -> RegisterRequest {
    RegisterRequest {
        version: VERSION,
        node_key: NodePrivate::from_bytes([3; 32]).public(),
        auth: Some(RegisterAuth { auth_key: SecretText("tskey-auth-x".to_owned()) }),
        ..RegisterRequest::default()
    }
}

#[tokio::test]
async fn registration_goes_there_and_back() {
    let server = FakeServer::start(Manners::Good, |asked| {
        assert_eq!((asked.method, &*asked.path), (Method::POST, "/machine/register"));
        assert_eq!(asked.peer, machine_key().public());
        assert_eq!(
            serde_json::from_slice::<RegisterRequest>(&asked.body).unwrap(),
            register_request()
        );
        ok(r#"{"MachineAuthorized":true,"User":{"ID":7},"Login":null,"Unknown":[]}"#)
    })
    .await;
    let response = server.client().await.register(&register_request()).await.unwrap();
    assert!(response.machine_authorized && response.user.id.0 == 7);
}

#[tokio::test]
async fn other_statuses_are_errors_with_what_the_server_said() {
    let server = FakeServer::start(Manners::Good, |_| {
        let mut answer = refusal(StatusCode::TOO_MANY_REQUESTS, "slow down\n");
        answer.headers_mut().insert("retry-after", "7".parse().unwrap());
        answer
    })
    .await;
    let error = server.client().await.register(&register_request()).await.unwrap_err();
    let RequestError::Status { status, message, retry_after } = error else { panic!("{error:?}") };
    assert_eq!((status, &*message), (StatusCode::TOO_MANY_REQUESTS, "slow down"));
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn answers_are_bounded() {
    let server = FakeServer::start(Manners::Good, |asked| {
        ok(vec![b' '; if asked.path == "/fits" { BODY_BYTES_MAX } else { BODY_BYTES_MAX + 1 }])
    })
    .await;
    let client = server.client().await;
    assert_eq!(client.post_raw("/fits", "").await.unwrap().body().len(), BODY_BYTES_MAX);
    let error = client.register(&register_request()).await.unwrap_err();
    assert!(matches!(error, RequestError::TooLong { max: BODY_BYTES_MAX }), "{error:?}");
}

#[tokio::test]
async fn malformed_answers_are_errors() {
    let server = FakeServer::start(Manners::Good, |_| ok("{")).await;
    let error = server.client().await.register(&register_request()).await.unwrap_err();
    assert!(matches!(error, RequestError::Json(_)), "{error:?}");
}

#[tokio::test]
async fn impossible_paths_are_errors() {
    let server = FakeServer::start(Manners::Good, |_| ok("")).await;
    let error = server.client().await.post_raw("/with space", "").await.unwrap_err();
    assert!(matches!(error, RequestError::Path(_)), "{error:?}");
}

#[tokio::test]
async fn lite_update_wants_no_content() {
    let server = FakeServer::start(Manners::Good, |asked| {
        let request: MapRequest = serde_json::from_slice(&asked.body).unwrap();
        if request.omit_peers { ok("") } else { refusal(StatusCode::BAD_REQUEST, "no") }
    })
    .await;
    let client = server.client().await;
    let lite = MapRequest { omit_peers: true, ..MapRequest::default() };
    client.lite_update(&lite).await.unwrap();
    client.lite_update(&MapRequest::default()).await.unwrap_err();
}

#[tokio::test]
async fn any_method_and_large_bodies_pass() {
    let server = FakeServer::start(Manners::Good, |asked| {
        assert_eq!((asked.method, &*asked.path), (Method::PATCH, "/machine/x?y=1"));
        ok(asked.body)
    })
    .await;
    let body: Vec<u8> = (0..1_000_000_u32).map(|index| index.to_le_bytes()[1]).collect();
    let client = server.client().await;
    let answer = client.request(Method::PATCH, "/machine/x?y=1", body.clone()).await.unwrap();
    assert!(*answer.body() == body);
}

#[tokio::test]
async fn requests_share_one_channel() {
    let server = FakeServer::start(Manners::Good, |asked| ok(asked.body)).await;
    let client = server.client().await;
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..50 {
        let client = client.clone();
        asking.spawn(async move {
            let answer = client.post_raw("/", number.to_string()).await.unwrap();
            assert_eq!(answer.body(), number.to_string().as_bytes());
        });
    }
    asking.join_all().await;
    server.wait_for_channels(1).await;
    assert!(!client.is_closed());
}
