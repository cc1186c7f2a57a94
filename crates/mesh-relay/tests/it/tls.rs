//! The relay's own door: real sockets and TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use anyhow::{Context, ensure};
use mesh_derp::{ClientInfo, ClientLogin, PacketKind};
use mesh_keys::{DerpPrivate, NodePublic};
use mesh_relay::{Certificate, Limits, Refusal, Relay, ServiceHandle, generate_self_signed};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Event, node};

/// A relay that listens on a port of its own.
struct Door {
    relay: Relay,
    service: ServiceHandle,
    cancel: CancellationToken,
    certificate: CertificateDer<'static>,
}

#[expect(clippy::disallowed_methods, reason = "certificates are valid by the system's time")]
async fn door() -> Door {
    let cancel = CancellationToken::new();
    let admission = Arc::new(|_: &NodePublic| true);
    let relay = Relay::new(DerpPrivate::from_bytes([0x52; 32]), admission, cancel.clone());
    let now = SystemTime::now();
    let pem = generate_self_signed("127.0.0.1", now).expect("a certificate");
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    let tls = Certificate::from_pem(&pem).expect("a certificate");
    let tls = tls.server_config(&relay.public_key(), now).expect("a usable certificate");
    let service = relay.spawn_tls_listener(SocketAddr::from(([127, 0, 0, 1], 0)), tls).await;
    Door { relay, service: service.expect("a port"), cancel, certificate }
}

impl Door {
    async fn connect(
        &self,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> anyhow::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let socket = TcpStream::connect(self.service.local_addr()).await?;
        let name = ServerName::try_from("127.0.0.1")?;
        Ok(TlsConnector::from(Arc::new(config)).connect(name, socket).await?)
    }

    /// Connects and upgrades as the Go client does where it sees no meta certificate.
    async fn join(&self, number: u8) -> anyhow::Result<Client<TlsStream<TcpStream>>> {
        let mut io = self.connect(&version::TLS13).await?;
        let head = "GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n";
        io.write_all(head.as_bytes()).await?;
        let answer = read_head(&mut io).await?;
        ensure!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        Client::log_in(io, &node(number)).await
    }

    /// Connects and sends the login at once, as the Go client does where it sees the meta certificate.
    async fn join_fast(&self, number: u8) -> anyhow::Result<Client<TlsStream<TcpStream>>> {
        let mut io = self.connect(&version::TLS13).await?;
        let chain = io.get_ref().1.peer_certificates().context("a chain")?;
        ensure!(chain.len() == 2, "a chain of {}", chain.len());
        let mut bytes =
            b"GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n".to_vec();
        let login = ClientLogin::new(&node(number), &self.relay.public_key())?;
        login.encode_client_info([3; 24], &ClientInfo::default(), &mut bytes);
        io.write_all(&bytes).await?;
        let mut client = Client::new(io, &node(number));
        client.expect(Event::ServerKey(self.relay.public_key())).await;
        ensure!(matches!(client.next().await?, Event::ServerInfo(_)));
        Ok(client)
    }
}

/// Reads the head of an answer, and not a byte more.
async fn read_head(io: &mut TlsStream<TcpStream>) -> anyhow::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(io.read_u8().await?));
    }
    Ok(head)
}

#[tokio::test]
async fn two_clients_talk_over_tls() {
    let door = door().await;
    let mut alice = door.join(1).await.expect("upgrade and login");
    let mut bob = door.join_fast(2).await.expect("fast start");
    for number in 0..200_u8 {
        let payload = vec![number; 1400];
        alice.send(bob.key, &payload).await;
        bob.expect(Event::Packet(alice.key, payload.clone())).await;
        bob.send(alice.key, &payload).await;
        alice.expect(Event::Packet(bob.key, payload)).await;
    }
    // Counted behind the write, which the client may see first.
    while door.relay.stats().sent.get(PacketKind::Data).packets < 400 {
        tokio::task::yield_now().await;
    }
    assert_eq!(door.relay.stats().connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn one_connection_may_ask_several_times_before_it_upgrades() {
    let door = door().await;
    let mut io = door.connect(&version::TLS13).await.expect("TLS");
    for (request, status) in [
        ("GET /derp/latency-check", "200 OK"),
        ("HEAD /derp/probe", "200 OK"),
        ("GET /generate_204", "204 No Content"),
        ("HEAD /nowhere", "404 Not Found"),
        ("HEAD /derp", "426 Upgrade Required"),
    ] {
        let head = format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n");
        io.write_all(head.as_bytes()).await.expect("the relay reads");
        let answer = read_head(&mut io).await.expect("an answer");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {answer}");
    }
    io.write_all(b"GET /derp HTTP/1.1\r\nUpgrade: DERP\r\n\r\n").await.expect("the relay reads");
    read_head(&mut io).await.expect("an answer");
    Client::log_in(io, &node(1)).await.expect("login").expect_silence().await;
}

#[tokio::test]
async fn who_speaks_older_tls_is_told_so() {
    let error = door().await.connect(&version::TLS12).await.expect_err("an alert");
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
}

#[tokio::test]
async fn nonsense_is_hung_up_on() {
    let door = door().await;
    let endless = vec![b'a'; 20_000];
    for nonsense in [&b"\0\0\0\0\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &endless] {
        let mut io = door.connect(&version::TLS13).await.expect("TLS");
        // The relay may hang up before it has read all of it.
        let _ = io.write_all(nonsense).await;
        let mut rest = Vec::new();
        let _ = io.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
        let mut plain = TcpStream::connect(door.service.local_addr()).await.expect("TCP");
        let _ = plain.write_all(nonsense).await;
        let _ = plain.read_to_end(&mut rest).await;
    }
    door.join(1).await.expect("login").expect_silence().await;
    let refused = |reason| door.relay.stats().refused(reason).load(Ordering::Relaxed);
    assert_eq!((refused(Refusal::Http), refused(Refusal::Tls)), (3, 3));
}

/// From one address, as it has to be here: they are in one another's way, and in nobody else's.
#[tokio::test]
async fn clients_get_in_beside_handshakes_that_do_not_go_on() {
    let door = door().await;
    door.relay.set_limits(Limits { pre_login_max: 50, ..Limits::default() });
    let mut half_open = Vec::new();
    for number in 0..200 {
        let mut io = TcpStream::connect(door.service.local_addr()).await.expect("TCP");
        if number % 2 == 0 {
            // The beginning of a handshake.
            io.write_all(b"\x16\x03\x01\x05\0\x01\0").await.expect("the relay reads");
        }
        half_open.push(io);
    }
    door.join(1).await.expect("login").expect_silence().await;
    door.join_fast(2).await.expect("login").expect_silence().await;
    let displaced = door.relay.stats().refused(Refusal::Displaced);
    while displaced.load(Ordering::Relaxed) < 150 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_cancelled_relay_says_goodbye_and_stops() {
    let door = door().await;
    let mut alice = door.join(1).await.expect("login");
    let mut asking = door.connect(&version::TLS13).await.expect("TLS");
    asking.write_all(b"GET /derp").await.expect("the relay reads");
    let addr = door.service.local_addr();
    door.cancel.cancel();
    door.service.stopped().await;
    assert_eq!(alice.closed().await, []);
    asking.read_to_end(&mut Vec::new()).await.ok();
    assert!(TcpStream::connect(addr).await.is_err());
    assert_eq!(door.relay.stats().clients.load(Ordering::Relaxed), 0);
}
