//! Doors beside the one with TLS, certificates that are exchanged, and how doors close.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_relay::{Certificate, LiveCertificate, Relay, generate_self_signed};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::client::{Client, Event, join, node, relay};

const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Upgrades and logs in without TLS.
async fn join_plain(addr: SocketAddr, number: u8) -> anyhow::Result<Client<TcpStream>> {
    let mut socket = TcpStream::connect(addr).await?;
    socket.write_all(b"GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n").await?;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(socket.read_u8().await?));
    }
    anyhow::ensure!(head.starts_with("HTTP/1.1 101 "), "{head}");
    Client::log_in(socket, &node(number)).await
}

#[tokio::test]
async fn clients_behind_a_proxy_come_without_tls() {
    let relay = relay();
    let door = relay.spawn_plain_listener(ANY_PORT).await.expect("a port");
    let mut alice = join_plain(door.local_addr(), 1).await.expect("login");
    let mut bob = join_plain(door.local_addr(), 2).await.expect("login");
    alice.send(bob.key, b"hello").await;
    bob.expect(Event::Packet(alice.key, b"hello".to_vec())).await;
}

#[expect(clippy::disallowed_methods, reason = "certificates are valid by the system's time")]
fn now() -> SystemTime {
    SystemTime::now()
}

fn certificate() -> (Certificate, CertificateDer<'static>) {
    let pem = generate_self_signed("127.0.0.1", now()).expect("a certificate");
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    (Certificate::from_pem(&pem).expect("what was made"), der)
}

/// Whether a client that trusts only this certificate gets through its handshake.
async fn is_shown(addr: SocketAddr, certificate: &CertificateDer<'static>) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(addr).await.expect("the door is open");
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.is_ok()
}

#[tokio::test]
async fn a_certificate_is_exchanged_while_clients_come() {
    let relay = relay();
    let ((first, first_der), (second, second_der)) = (certificate(), certificate());
    let shown = LiveCertificate::new(first, &relay.public_key(), now()).expect("usable");
    let tls = shown.server_config().expect("usable");
    let door = relay.spawn_tls_listener(ANY_PORT, tls).await.expect("a port");
    let addr = door.local_addr();
    assert!(is_shown(addr, &first_der).await && !is_shown(addr, &second_der).await);
    shown.replace(second, now()).expect("usable");
    assert!(is_shown(addr, &second_der).await && !is_shown(addr, &first_der).await);
}

#[tokio::test]
async fn a_drained_relay_lets_nobody_in_and_its_clients_go() {
    let relay = relay();
    let door = relay.spawn_plain_listener(ANY_PORT).await.expect("a port");
    let stun = relay.spawn_stun_listener(ANY_PORT).await.expect("a port");
    let (door_addr, stun_addr) = (door.local_addr(), stun.local_addr());
    let mut alice = join_plain(door_addr, 1).await.expect("login");
    assert!(relay.is_accepting());

    relay.drain(Duration::from_secs(30)).await;
    assert!(!relay.is_accepting());
    assert_eq!(alice.closed().await, []);
    // All connections have ended, so that this does not wait for the relay's own end.
    door.stopped().await;
    stun.stopped().await;
    assert!(TcpStream::connect(door_addr).await.is_err());
    let socket = UdpSocket::bind(ANY_PORT).await.expect("a port");
    // Who listens no more is told by the system as an error, if at all.
    let _ = socket.send_to(&[0; 20], stun_addr).await;
    let answer = timeout(Duration::from_millis(100), socket.recv(&mut [0; 100])).await;
    assert!(!matches!(answer, Ok(Ok(_))));
}

async fn crowd(relay: &Relay, clients: u8) -> Vec<Client<tokio::io::DuplexStream>> {
    let mut crowd = Vec::new();
    for number in 1..=clients {
        crowd.push(join(relay, number).await);
    }
    crowd
}

#[tokio::test(start_paused = true)]
async fn many_clients_go_one_after_the_other() {
    let relay = relay();
    let mut crowd = crowd(&relay, 100).await;
    let began_at = Instant::now();
    relay.drain(Duration::from_secs(5)).await;
    let took = began_at.elapsed();
    assert!((Duration::from_millis(400)..Duration::from_secs(1)).contains(&took), "{took:?}");
    assert_eq!(relay.connected(), []);
    for client in &mut crowd {
        client.closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_although_clients_come_by_doors_of_others() {
    let relay = relay();
    let _alice = join(&relay, 1).await;
    let joining = async {
        loop {
            let _ = join(&relay, 2).await;
            sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        biased;
        () = relay.drain(Duration::from_secs(2)) => {}
        () = joining => {}
    }
}
