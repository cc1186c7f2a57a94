use std::sync::Arc;
use std::time::Duration;

use mesh_derp::ServerLogin;
use mesh_keys::{DerpPrivate, NodePublic};
use mesh_relay::{Admission, Relay};
use tokio::io::{AsyncReadExt, duplex};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;

const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n\r\n";

const RATE: Rate = Rate { per_second: 4000, burst: 100_000 };

fn node() -> NodePrivate {
    NodePrivate::from_bytes([1; 32])
}

fn relay_key() -> DerpPrivate {
    DerpPrivate::from_bytes([0x52; 32])
}

/// The error as it is told, with its cause.
fn tell(error: &ConnectError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}

/// Logs in at a stream on which `answer` arrives, whatever is asked, and then the end.
async fn check(answer: &[u8], expected: &str) {
    let (mut ours, mut theirs) = duplex(1 << 20);
    theirs.write_all(answer).await.expect("room");
    theirs.shutdown().await.expect("a stream in memory");
    let login = async { log_in(&mut ours, "relay.example", &node(), None).await };
    let login = timeout(Duration::from_secs(10), login).await.expect("an end");
    let error = login.expect_err("no relay");
    assert_eq!(tell(&error), expected);
}

fn upgraded(frames: &[ServerFrame<'_>]) -> Vec<u8> {
    let mut bytes = UPGRADED.to_vec();
    for frame in frames {
        frame.encode(&mut bytes);
    }
    bytes
}

async fn log_in_to(admission: impl Admission) -> (Relay, Result<LoggedIn, ConnectError>) {
    let relay = Relay::new(relay_key(), Arc::new(admission), CancellationToken::new());
    let (mut ours, theirs) = duplex(4096);
    let serving = relay.clone();
    tokio::spawn(async move { serving.serve_connection(theirs, None).await });
    let login = log_in(&mut ours, "relay.example", &node(), None).await;
    assert_eq!(relay.is_connected(&node().public()), login.is_ok());
    (relay, login)
}

#[tokio::test]
async fn a_relay_logs_us_in() {
    log_in_to(|_: &NodePublic| true).await.1.expect("login");
}

#[tokio::test]
async fn a_relay_that_does_not_admit_us_hangs_up() {
    let login = log_in_to(|_: &NodePublic| false).await.1;
    assert_eq!(
        tell(&login.expect_err("not admitted")),
        "connection ended within the login: unexpected end of file"
    );
}

#[tokio::test]
async fn what_the_relay_tells_and_what_comes_right_behind_it_is_kept() {
    let login = ServerLogin::new(relay_key(), None);
    let (mut ours, mut theirs) = duplex(4096);
    let relay = tokio::spawn(async move {
        let mut head = vec![0; 4096];
        let bytes = theirs.read(&mut head).await.expect("a request");
        assert_eq!(
            str::from_utf8(&head[..bytes]).expect("text"),
            "GET /derp HTTP/1.1\r\nHost: relay.example\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n"
        );
        let mut out = UPGRADED.to_vec();
        login.encode_greeting(&mut out);
        theirs.write_all(&out).await.expect("the client reads");
        let mut input = Vec::new();
        let client = loop {
            theirs.read_buf(&mut input).await.expect("a login");
            if let Some(client) = login.handle_input(&mut &input[..]).expect("a login") {
                break client;
            }
        };
        assert_eq!(client.key, node().public());
        assert_eq!((client.info.version, client.info.can_ack_pings), (2, true));
        let mut out = Vec::new();
        client.encode_server_info(Some(RATE), [9; NONCE_BYTES], &mut out);
        ServerFrame::KeepAlive.encode(&mut out);
        theirs.write_all(&out).await.expect("the client reads");
    });
    let login = log_in(&mut ours, "relay.example", &node(), None).await.expect("login");
    assert_eq!(login.relay, relay_key().public());
    assert_eq!(&login.input[..], [6, 0, 0, 0, 0]);
    assert_eq!(login.rate, Some(RATE));
    relay.await.expect("no panic");
}

#[tokio::test]
async fn a_server_that_does_not_upgrade_is_no_relay() {
    check(b"HTTP/1.1 404 Not Found\r\n\r\nnothing", "relay answered the upgrade with status 404")
        .await;
    check(b"HTTP/1.1 200 OK\r\n\r\n", "relay answered the upgrade with status 200").await;
    check(b"\0\0\0\0\r\n\r\n", "relay does not speak HTTP: invalid HTTP version").await;
    check(b"HTTP/1.1 101 Sw", "connection ended before the login: unexpected end of file").await;
    let endless = [b"HTTP/1.1 101 x\r\nA: ".as_slice(), &b"a".repeat(100_000)].concat();
    check(&endless, "head of the relay's answer is too long").await;
    let lines = [b"HTTP/1.1 101 x\r\n".to_vec(), b"a: b\r\n".repeat(65)].concat();
    check(&lines, "relay does not speak HTTP: too many headers").await;
}

#[tokio::test]
async fn a_relay_that_spoils_the_login_is_left() {
    let relay = relay_key().public();
    let greeting = ServerFrame::ServerKey(relay);
    check(UPGRADED, "connection ended before the login: unexpected end of file").await;
    let hung_up = "connection ended within the login: unexpected end of file";
    check(&upgraded(&[greeting]), hung_up).await;
    check(&upgraded(&[ServerFrame::KeepAlive]), "relay is out of step in the login").await;
    check(&upgraded(&[greeting, greeting]), "relay is out of step in the login").await;
    let bogus = ServerFrame::ServerInfo(&[0; 60]);
    check(&upgraded(&[greeting, bogus]), "login failed: cannot open the sealed part").await;
    let zero = ServerFrame::ServerKey(NodePublic::from_bytes([0; 32]));
    check(&upgraded(&[zero]), "login failed: key of low order").await;
    let no_magic = [UPGRADED, &[1, 0, 0, 0, 40], &[0; 40]].concat();
    check(&no_magic, "greeting is not that of a DERP relay").await;
    let oversized = [UPGRADED, &[1, 0xff, 0xff, 0xff, 0xff]].concat();
    check(&oversized, "frame of type 0x01 with 4294967295 bytes").await;
}

#[test]
fn a_told_rate_lets_the_longest_packet_pass_and_none_is_told_by_zero() {
    let told = |token_bucket_bytes_per_second, token_bucket_bytes_burst| {
        let info = ServerInfo {
            token_bucket_bytes_per_second,
            token_bucket_bytes_burst,
            ..ServerInfo::default()
        };
        told_rate(info)
    };
    assert_eq!(told(0, 1 << 20), None);
    assert_eq!(told(1, 1 << 20), Some(Rate { per_second: 1, burst: 1 << 20 }));
    assert_eq!(told(1, 0), Some(Rate { per_second: 1, burst: SEND_BYTES_MAX }));
}
