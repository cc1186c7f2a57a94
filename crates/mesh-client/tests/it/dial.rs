use std::time::Duration;

use http::{Method, Request};
use http_body_util::Full;
use mesh_client::{ControlClient, DIAL_TIMEOUT, DialError, Dialer, RequestError};
use mesh_noise::HandshakeError;
use mesh_wire::CapabilityVersion;
use rustls::RootCertStore;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::fake_server::{FakeServer, Manners, VERSION, machine_key, ok};

async fn connect(server: &FakeServer) -> Result<ControlClient, DialError> {
    ControlClient::connect(&server.dialer(), &machine_key(), VERSION).await
}

async fn refused(manners: Manners) -> DialError {
    let server = FakeServer::start(manners, |_| ok("")).await;
    connect(&server).await.expect_err("a failed dial")
}

#[tokio::test]
async fn channel_opens_with_and_without_early_payload() {
    for manners in [Manners::Good, Manners::NoEarlyPayload] {
        let server = FakeServer::start(manners, |asked| ok(asked.peer.to_string())).await;
        let client = connect(&server).await.unwrap();
        assert_eq!(client.server_key(), server.key);
        let answer = client.post_raw("/whoami", "").await.unwrap();
        assert_eq!(answer.body(), machine_key().public().to_string().as_bytes());
    }
}

#[tokio::test]
async fn known_key_spares_the_question() {
    let server = FakeServer::start(Manners::NoKey, |_| ok("hello")).await;
    let (dialer, key) = (server.dialer(), machine_key());
    let client = ControlClient::connect_to(&dialer, &key, VERSION, server.key).await.unwrap();
    let answer = client.post_raw("/", "").await.unwrap();
    assert_eq!(answer.body(), "hello");
}

#[tokio::test]
async fn requests_outside_the_channel_go_to_the_server_whatever_their_uri_says() {
    let server = FakeServer::start_tls(|_| ok("")).await;
    let ask = |method, uri: &str| {
        let request = Request::builder().method(method).uri(uri).body(Full::default()).unwrap();
        let dialer = server.dialer();
        async move { dialer.request_outside(request).await.unwrap().into_body() }
    };
    let answer = ask(Method::POST, "http://elsewhere.example:1/outside?x=1").await;
    assert_eq!(answer, "POST /outside?x=1");
    assert_eq!(ask(Method::HEAD, "/outside").await, "");
}

#[tokio::test]
async fn every_address_of_ours_can_dial() {
    let server = FakeServer::start(Manners::Good, |_| ok("hello")).await;
    let dialer = server.dialer().with_source([127, 1, 2, 3].into());
    assert_eq!(dialer.server_key(VERSION).await.unwrap(), server.key);
    let dialer = server.dialer().with_receive_buffer(4096);
    assert_eq!(dialer.server_key(VERSION).await.unwrap(), server.key);
    let foreign = server.dialer().with_source([192, 0, 2, 1].into());
    let error = foreign.server_key(VERSION).await.unwrap_err();
    assert!(matches!(error, DialError::Connect(_)), "{error:?}");
}

#[tokio::test]
async fn tls_needs_a_trusted_certificate() {
    let server = FakeServer::start_tls(|_| ok("over tls")).await;
    let client = connect(&server).await.unwrap();
    assert_eq!(client.post_raw("/", "").await.unwrap().body(), "over tls");
    let distrusting = Dialer::new(server.url.clone(), RootCertStore::empty());
    let error = distrusting.server_key(VERSION).await.unwrap_err();
    assert!(matches!(error, DialError::Connect(_)), "{error:?}");
}

#[tokio::test]
async fn unusable_keys_are_errors() {
    assert!(matches!(refused(Manners::NoKey).await, DialError::NoKey));
    assert!(matches!(refused(Manners::MalformedKey).await, DialError::Key(_)));
    let error = refused(Manners::EndlessKey).await;
    assert!(
        matches!(error, DialError::Request(RequestError::TooLong { max: 65_536 })),
        "{error:?}"
    );
}

#[tokio::test]
async fn failed_handshakes_are_errors() {
    let error = refused(Manners::WrongKey).await;
    let DialError::Request(RequestError::Status { status, message, .. }) = error else {
        panic!("{error:?}")
    };
    assert_eq!((status.as_u16(), &*message), (400, "bad handshake"));
    let error = refused(Manners::ErrorFrame).await;
    let expected = HandshakeError::Refused { message: "go away".to_owned() };
    assert!(matches!(&error, DialError::Handshake(refused) if *refused == expected), "{error:?}");
    let error = refused(Manners::HalfAnswer).await;
    assert!(matches!(error, DialError::Interrupted(_)), "{error:?}");
}

#[tokio::test]
async fn server_must_switch_protocols() {
    for manners in [Manners::NoSwitch, Manners::OtherProtocol] {
        let error = refused(manners).await;
        assert!(matches!(error, DialError::NotSwitched), "{error:?}");
    }
}

#[tokio::test]
async fn version_must_fit_the_handshake() {
    let server = FakeServer::start(Manners::Good, |_| ok("")).await;
    let (dialer, key, version) = (server.dialer(), machine_key(), CapabilityVersion(65_536));
    let error = ControlClient::connect_to(&dialer, &key, version, server.key).await.unwrap_err();
    assert!(matches!(error, DialError::Version(_)), "{error:?}");
}

#[tokio::test]
async fn nobody_listening_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let error = Dialer::new(url, RootCertStore::empty()).server_key(VERSION).await.unwrap_err();
    assert!(matches!(error, DialError::Connect(_)), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn silent_server_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let begun_at = Instant::now();
    let error = Dialer::new(url, RootCertStore::empty()).server_key(VERSION).await.unwrap_err();
    assert!(matches!(error, DialError::Timeout), "{error:?}");
    assert!(begun_at.elapsed() < DIAL_TIMEOUT + Duration::from_secs(1));
}
