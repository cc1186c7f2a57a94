//! Relays of this process on the loopback, good ones and others.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::SystemTime;

use mesh_keys::{DerpPrivate, NodePublic};
use mesh_relay::{Certificate, MeshHandle, Relay, ServiceHandle, generate_self_signed};
use mesh_server::derp_map::{DerpSource, merge};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::super::verdict::Severity;
use super::*;

const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[expect(clippy::disallowed_methods, reason = "certificates are valid by the system's time")]
fn system_time() -> SystemTime {
    SystemTime::now()
}

/// A relay with a pinned certificate and STUN.
struct Local {
    relay: Relay,
    pin: String,
    doors: [ServiceHandle; 2],
}

impl Local {
    async fn start(number: u8, admits: bool) -> Self {
        let now = system_time();
        let text = generate_self_signed("localhost", now).unwrap();
        let certificate = Certificate::from_pem(&text).unwrap();
        let pin = certificate.pin().unwrap();
        let key = DerpPrivate::from_bytes([number; 32]);
        let admission = move |_: &NodePublic| admits;
        let tls = certificate.server_config(&key.public(), now).unwrap();
        let mesh_key = "5a".repeat(32).parse().unwrap();
        let (admission, cancel) = (Arc::new(admission), CancellationToken::new());
        let relay = Relay::with_mesh_key(key, Some(mesh_key), admission, cancel);
        let doors = [
            relay.spawn_tls_listener(ANYWHERE, tls).await.unwrap(),
            relay.spawn_stun_listener(ANYWHERE).await.unwrap(),
        ];
        Self { relay, pin, doors }
    }

    fn port(&self) -> u16 {
        self.doors[0].local_addr().port()
    }

    fn stun_port(&self) -> u16 {
        self.doors[1].local_addr().port()
    }

    /// Has packets passed on to another one.
    fn mesh_with(&self, other: &Self) -> MeshHandle {
        let peer = format!("localhost:{}/127.0.0.1 {}", other.port(), other.pin);
        self.relay.spawn_mesh(&peer.parse().unwrap(), Arc::new(RootCertStore::empty())).unwrap()
    }

    fn node(&self, name: &str) -> String {
        node(name, self.port(), self.stun_port(), &self.pin)
    }
}

/// A node as it stands in a map.
fn node(name: &str, port: u16, stun_port: u16, certificate: &str) -> String {
    format!(
        "{{name: {name}, hostname: localhost, ipv4: 127.0.0.1, ipv6: none, derpport: {port}, stunport: {stun_port}, \
         certname: '{certificate}'}}"
    )
}

async fn checked(regions: &[(u32, &[String])]) -> Report {
    let regions: Vec<_> = regions
        .iter()
        .map(|(id, nodes)| format!("{id}: {{nodes: [{}]}}", nodes.join(", ")))
        .collect();
    let text = format!("regions: {{{}}}", regions.join(", "));
    let source = DerpSource::parse_sound(text.as_bytes()).unwrap();
    let map = merge(&[], &[source]).unwrap();
    check(&map, Arc::new(RootCertStore::empty()), false).await
}

/// What is wrong with the nodes, a list for each.
fn told(report: &Report) -> Vec<(&str, Vec<(Severity, &str)>)> {
    let nodes = report.regions.iter().flat_map(|region| &region.nodes);
    let findings = nodes.map(|node| {
        let findings =
            node.findings.iter().map(|finding| (finding.severity, finding.what.as_str()));
        (node.name.as_str(), findings.collect())
    });
    findings.collect()
}

/// A server that answers everything with this.
async fn spawn_answering(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind(ANYWHERE).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.write_all(answer).await;
        }
    });
    port
}

/// A port of which nobody knows but that it is taken.
async fn mute_port() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind(ANYWHERE).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

#[tokio::test]
async fn good_and_bad_nodes_are_told_apart() {
    let good = Local::start(1, true).await;
    let closed_port = {
        let listener = TcpListener::bind(ANYWHERE).await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let wrong_pin = format!("sha256-raw:{}", "0".repeat(64));
    let web_port = spawn_answering(b"HTTP/1.1 200 OK\r\n\r\n").await;
    let (_mute, mute_port) = mute_port().await;
    let (port, stun_port) = (good.port(), good.stun_port());
    let report = checked(&[
        (1, &[good.node("good")]),
        (2, &[node("wrong-pin", port, stun_port, &wrong_pin)]),
        (3, &[node("closed", closed_port, stun_port, &good.pin)]),
        (4, &[node("dead-stun", port, mute_port, &good.pin)]),
        (5, &[node("no-tls", web_port, stun_port, &good.pin)]),
        (6, &[node("no-pin", port, stun_port, "")]),
    ])
    .await;
    let failure = |what| vec![(Severity::Failure, what)];
    assert_eq!(
        told(&report),
        [
            ("good", vec![]),
            (
                "wrong-pin",
                failure("relay over IPv4: its certificate is not the one that certname pins")
            ),
            ("closed", failure("relay over IPv4: the port is closed")),
            ("dead-stun", failure("STUN over IPv4: nothing answers in time")),
            ("no-tls", failure("relay over IPv4: what answers speaks no TLS")),
            (
                "no-pin",
                failure(
                    "relay over IPv4: its certificate is not trusted: nobody known has signed it"
                )
            ),
        ]
    );
    assert!(!report.usable);
    assert_eq!(report.problem().as_deref(), Some("5 of 6 node(s) cannot be used"));
    let table = report.table();
    assert!(table.contains("certname") && table.contains("stunport: -1"), "{table}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["regions"][0]["nodes"][0]["login"], "admitted");
    assert!(json["regions"][0]["nodes"][0]["ipv4"]["stun_ms"].is_number(), "{json}");
    assert_eq!(json["regions"][2]["nodes"][0]["ipv4"]["relay_ms"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_relay_that_admits_nobody_else_is_good() {
    let relay = Local::start(2, false).await;
    let report = checked(&[(1, &[relay.node("own")])]).await;
    let found = told(&report);
    assert_eq!(
        found[0].1.iter().map(|(severity, _)| *severity).collect::<Vec<_>>(),
        [Severity::Note]
    );
    assert!(report.usable);
    assert_eq!(report.problem(), None);
    let table = report.table();
    assert!(table.contains("refused  reachable, see below"), "{table}");
    assert!(table.contains("lets your own nodes in was not tried"), "{table}");
}

/// A proxy with a relay's certificate, which measures well and hangs up on every upgrade after `answer`.
async fn spawn_hanging_up(answer: &'static [u8]) -> (u16, String) {
    let text = generate_self_signed("localhost", system_time()).unwrap();
    let certificate = Certificate::from_pem(&text).unwrap();
    let pin = certificate.pin().unwrap();
    let key = DerpPrivate::from_bytes([9; 32]).public();
    let tls = certificate.server_config(&key, system_time()).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind(ANYWHERE).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let mut io = acceptor.accept(socket).await.unwrap();
            let mut head = vec![0; 4096];
            let bytes = io.read(&mut head).await.unwrap();
            let is_measured = head[..bytes].starts_with(b"GET /derp/latency-check");
            let answer = if is_measured { b"HTTP/1.1 200 OK\r\n\r\n" } else { answer };
            let _ = io.write_all(answer).await;
            let _ = io.shutdown().await;
        }
    });
    (port, pin)
}

#[tokio::test]
async fn who_hangs_up_on_every_upgrade_is_not_taken_for_a_relay_that_refuses() {
    for answer in [&b""[..], b"HTTP/1.1 101 Switching Protocols\r\n\r\n"] {
        let (port, pin) = spawn_hanging_up(answer).await;
        let node = format!(
            "{{name: proxy, hostname: localhost, ipv4: 127.0.0.1, ipv6: none, derpport: {port}, stunport: -1, \
             certname: '{pin}'}}"
        );
        let report = checked(&[(1, &[node])]).await;
        let what = "it does not let a client log in: connection ended before the login";
        assert_eq!(told(&report), [("proxy", vec![(Severity::Failure, what)])]);
    }
}

#[tokio::test]
async fn nodes_of_a_region_must_pass_packets_on() {
    let (one, other) = (Local::start(3, true).await, Local::start(4, true).await);
    let apart = checked(&[(1, &[one.node("a"), other.node("b")])]).await;
    assert_eq!((apart.usable, apart.regions[0].meshed), (false, Some(false)));
    assert!(apart.regions[0].nodes.iter().all(|node| node.usable));
    let finding = &apart.regions[0].findings[0];
    assert_eq!(finding.what, "packets do not pass from a to b, b to a");
    assert_eq!(
        apart.problem().as_deref(),
        Some("1 region(s) have nodes that do not reach each other")
    );
    // In regions of their own, nothing is wrong with them.
    assert!(checked(&[(1, &[one.node("a")]), (2, &[other.node("b")])]).await.usable);

    let _links = [one.mesh_with(&other), other.mesh_with(&one)];
    let meshed = checked(&[(1, &[one.node("a"), other.node("b")])]).await;
    assert_eq!((meshed.usable, meshed.regions[0].meshed), (true, Some(true)));
}
