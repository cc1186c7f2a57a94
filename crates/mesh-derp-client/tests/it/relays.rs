//! Relays and clients for the tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use mesh_derp_client::{DisconnectCause, Event, Options, RegionClient};
use mesh_keys::{DerpPrivate, NodePrivate, NodePublic};
use mesh_relay::{Admission, Certificate, Relay, ServiceHandle, generate_self_signed};
use mesh_wire::{DerpNode, DerpRegion, DerpRegionId};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const REGION: DerpRegionId = DerpRegionId(900);

/// A self-signed certificate, its key, and what it takes to trust it.
pub(crate) struct Identity {
    pem: String,
    pub(crate) pin: String,
    pub(crate) roots: RootCertStore,
}

impl Identity {
    pub(crate) fn new(host: &str) -> Self {
        Self::from_pem(generate_self_signed(host, system_time()).expect("a certificate"))
    }

    pub(crate) fn from_pem(pem: String) -> Self {
        let pin = Certificate::from_pem(&pem).expect("a certificate").pin().expect("one alone");
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        roots.add(certificate).expect("a certificate");
        Self { pem, pin, roots }
    }

    pub(crate) fn server_config(&self, relay: &NodePublic) -> rustls::ServerConfig {
        let certificate = Certificate::from_pem(&self.pem).expect("a certificate");
        certificate.server_config(relay, system_time()).expect("a usable certificate")
    }
}

#[expect(clippy::disallowed_methods, reason = "certificates are valid by the system's time")]
fn system_time() -> SystemTime {
    SystemTime::now()
}

/// A relay that listens on a port of its own.
pub(crate) struct TestRelay {
    pub(crate) relay: Relay,
    service: ServiceHandle,
    cancel: CancellationToken,
}

impl TestRelay {
    pub(crate) async fn start(identity: &Identity) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), identity, |_: &NodePublic| true).await
    }

    pub(crate) async fn start_at(
        addr: SocketAddr,
        identity: &Identity,
        admission: impl Admission,
    ) -> Self {
        let cancel = CancellationToken::new();
        let key = DerpPrivate::from_bytes([0x52; 32]);
        let relay = Relay::new(key, Arc::new(admission), cancel.clone());
        let tls = identity.server_config(&relay.public_key());
        let service = relay.spawn_tls_listener(addr, tls).await.expect("a port");
        Self { relay, service, cancel }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.service.local_addr()
    }

    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        self.service.stopped().await;
    }
}

/// The node of a DERP map for a relay at `addr` with a pinned certificate.
pub(crate) fn pinned_node(addr: SocketAddr, identity: &Identity) -> DerpNode {
    DerpNode {
        name: format!("at-{}", addr.port()),
        region_id: REGION,
        host_name: "relay.example".to_owned(),
        cert_name: identity.pin.clone(),
        ipv4: addr.ip().to_string(),
        ipv6: "none".to_owned(),
        derp_port: addr.port().into(),
        ..DerpNode::default()
    }
}

/// A client and what it tells.
pub(crate) struct Client {
    pub(crate) handle: RegionClient,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) key: NodePublic,
}

impl Client {
    pub(crate) fn spawn(number: u8, nodes: Vec<DerpNode>) -> Self {
        Self::spawn_with(number, nodes, RootCertStore::empty(), false)
    }

    pub(crate) fn spawn_with(
        number: u8,
        nodes: Vec<DerpNode>,
        roots: RootCertStore,
        is_home: bool,
    ) -> Self {
        let region = DerpRegion { region_id: REGION, nodes, ..DerpRegion::default() };
        let private = NodePrivate::from_bytes([number; 32]);
        let key = private.public();
        let (sender, events) = mpsc::channel(16);
        let options =
            Options { region: Arc::new(region), private, roots: Arc::new(roots), is_home };
        Self { handle: RegionClient::spawn(options, sender), events, key }
    }

    pub(crate) async fn spawn_connected(number: u8, nodes: Vec<DerpNode>) -> Self {
        let mut client = Self::spawn(number, nodes);
        client.expect_connected().await;
        assert!(client.handle.status().is_connected);
        client
    }

    pub(crate) async fn next(&mut self) -> Event {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("an event")
    }

    pub(crate) async fn expect_connected(&mut self) {
        let event = self.next().await;
        assert!(matches!(event, Event::Connected { region: REGION }), "{event:?}");
    }

    pub(crate) async fn expect_disconnected(&mut self) -> DisconnectCause {
        let event = self.next().await;
        let Event::Disconnected { region: REGION, cause } = event else { panic!("{event:?}") };
        cause
    }

    pub(crate) async fn expect_packet(&mut self, from: NodePublic, expected: &[u8]) {
        let event = self.next().await;
        let Event::Received { region: REGION, src, packet } = event else { panic!("{event:?}") };
        assert!(src == from && packet == expected, "{} bytes", packet.len());
    }

    pub(crate) fn send(&self, dst: NodePublic, packet: &[u8]) {
        self.handle.send(dst, Bytes::copy_from_slice(packet));
    }
}

/// The cause with all that is behind it.
pub(crate) fn tell(cause: &DisconnectCause) -> String {
    let mut told = cause.to_string();
    let mut source = std::error::Error::source(cause);
    while let Some(error) = source {
        told = format!("{told}: {error}");
        source = error.source();
    }
    told
}

/// Waits until something is so that nobody tells.
pub(crate) async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}
