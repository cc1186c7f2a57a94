//! Connections that nobody makes anything of.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_keys::NodePublic;
use mesh_relay::{Certificate, generate_self_signed};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::channel;
use crate::http;
use crate::server::{Setup, TestServer, within};

/// Long enough for what a test does meanwhile, short enough to wait for.
const HEADER_TIMEOUT: Duration = Duration::from_millis(500);

async fn impatient_server() -> TestServer {
    TestServer::start_as(Setup { header_timeout: HEADER_TIMEOUT, ..Setup::default() }).await
}

/// Sends `beginning` and nothing more; the server hangs up on it, with `answer` at most.
async fn check_cut_off(server: &TestServer, beginning: &str, answer: &str) {
    let mut stream = server.connect().await;
    let started = Instant::now();
    stream.write_all(beginning.as_bytes()).await.unwrap();
    let rest = http::rest(&mut stream).await;
    let rest = String::from_utf8_lossy(&rest);
    assert!(
        rest.starts_with(answer) && rest.is_empty() == answer.is_empty(),
        "{beginning}: {rest}"
    );
    assert!(started.elapsed() >= HEADER_TIMEOUT / 2, "{beginning}");
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_off() {
    let server = impatient_server().await;
    for beginning in [
        "",
        "P",
        "PRI * HTTP/2.0\r\n",
        "GET /key?v=145 HTTP/1.1\r\nHost: te",
        "GET /key?v=145 HTTP/1.1\r\nHost: test\r\nX-Long: a\r\n",
    ] {
        check_cut_off(&server, beginning, "").await;
    }
    server.until(|server| server.connections() == 1).await;
}

#[tokio::test]
async fn http_2_without_a_request_is_cut_off() {
    let server = impatient_server().await;
    let mut stream = server.connect().await;
    stream.write_all(channel::HELLO).await.unwrap();
    http::rest(&mut stream).await;
    server.until(|server| server.connections() == 1).await;
}

#[tokio::test]
async fn a_connection_that_is_kept_for_later_is_cut_off() {
    let server = impatient_server().await;
    check_cut_off(&server, "GET /version HTTP/1.1\r\nHost: test\r\n\r\n", "HTTP/1.1 200 OK").await;
    server.until(|server| server.connections() == 1).await;
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let server = TestServer::start().await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /version HTTP/1.1\r\nHost: test\r\n").await.unwrap();
    let line = format!("X-Long: {}\r\n", "a".repeat(1000));
    let mut sent = 0;
    // Whoever hangs up in the middle may reset the connection.
    while stream.write_all(line.as_bytes()).await.is_ok() {
        sent += line.len();
        assert!(sent < 4 << 20, "the server reads on");
        tokio::task::yield_now().await;
    }
    server.until(|server| server.connections() == 1).await;
}

#[tokio::test]
async fn a_thousand_silent_connections_keep_nobody_out() {
    let header_timeout = Duration::from_secs(2);
    let server = TestServer::start_as(Setup { header_timeout, ..Setup::default() }).await;
    let mut silent = Vec::new();
    for number in 0..1000 {
        let mut stream = server.connect().await;
        if number % 2 == 0 {
            stream.write_all(b"POST /ts2021 HTTP/1.1\r\n").await.unwrap();
        }
        silent.push(stream);
    }
    server.until(|server| server.connections() == 1001).await;
    let asked = Instant::now();
    assert_eq!(server.get("/key?v=145").await.status, 200);
    server.join(1).await;
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    for mut stream in silent {
        assert_eq!(http::rest(&mut stream).await, b"");
    }
    server.until(|server| server.connections() == 1).await;
}

#[tokio::test]
async fn hundreds_of_channels_that_ask_nothing_keep_nobody_out() {
    let handshake_timeout = Duration::from_secs(2);
    let server = TestServer::start_as(Setup { handshake_timeout, ..Setup::default() }).await;
    let mut silent = Vec::new();
    for _ in 0..500 {
        silent.push(channel::open(&server, 9, "").await);
    }
    let asked = Instant::now();
    server.join(1).await;
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    for mut channel in silent {
        channel::frames_until_closed(&mut channel).await;
    }
    server.until(|server| server.channels() == 0).await;
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_end_is_cut_off() {
    let setup = Setup {
        handshake_timeout: Duration::from_millis(300),
        tls: Some(tls_acceptor()),
        ..Setup::default()
    };
    let server = TestServer::start_as(setup).await;
    for beginning in [&b""[..], &[0x16, 3, 1], b"GET / HTTP/1.1\r\n\r\n", &[0; 100]] {
        let mut stream = server.connect().await;
        stream.write_all(beginning).await.unwrap();
        http::rest(&mut stream).await;
    }
    server.until(|server| server.connections() == 1).await;
}

#[expect(clippy::disallowed_methods, reason = "certificates are valid by the system's time")]
fn tls_acceptor() -> TlsAcceptor {
    let now = SystemTime::now();
    let certificate =
        Certificate::from_pem(&generate_self_signed("127.0.0.1", now).unwrap()).unwrap();
    let config = certificate.server_config(&NodePublic::default(), now).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test]
async fn beyond_the_limit_connections_are_turned_away() {
    let setup = Setup { connections_max: 3, header_timeout: HEADER_TIMEOUT, ..Setup::default() };
    let server = TestServer::start_as(setup).await;
    let held: Vec<TcpStream> =
        vec![server.connect().await, server.connect().await, server.connect().await];
    server.until(|server| server.connections() == 4).await;
    let started = Instant::now();
    http::rest(&mut server.connect().await).await;
    assert!(started.elapsed() < HEADER_TIMEOUT, "it is closed at once");
    server.until(|server| server.connections() == 1).await;
    drop(held);
    assert_eq!(server.get("/version").await.status, 200);
}

#[tokio::test]
async fn the_connection_of_a_node_takes_nobodys_place() {
    let server = TestServer::start_as(Setup { connections_max: 2, ..Setup::default() }).await;
    let mut clients = Vec::new();
    for number in 1..=10 {
        clients.push(server.join(number).await);
    }
    assert_eq!(server.get("/version").await.status, 200);
    assert!(clients.iter().all(|client| !client.is_closed()));
    // Strangers in channels do count.
    let _strangers = [server.client(20).await, server.client(21).await];
    assert_eq!(http::rest(&mut server.connect().await).await, b"");
}

#[tokio::test]
async fn a_server_that_stops_ends_every_connection() {
    let server = TestServer::start().await;
    let client = server.join(1).await;
    let mut stream = client.map_stream(&crate::server::map_request(1)).await.unwrap();
    within(stream.next()).await.unwrap().unwrap();
    let _silent = server.connect().await;
    let mut kept = server.connect().await;
    http::ask(&mut kept, "GET /version HTTP/1.1\r\nHost: test\r\n\r\n").await;
    server.until(|server| server.connections() == 3).await;
    server.stop();
    assert!(within(stream.next()).await.unwrap().is_none());
    server.stopped().await;
}
