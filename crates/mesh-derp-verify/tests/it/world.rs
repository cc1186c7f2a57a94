//! A relay with a verifier, and clients of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_derp::{ClientInfo, ClientLogin};
use mesh_derp_verify::{Asks, Options, Verifier, VerifyStats};
use mesh_keys::{DerpPrivate, NodePrivate, NodePublic};
use mesh_relay::{Admission, Relay, Upgrade};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

/// Longer than anything here takes on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(90);

/// The address that all clients come from.
pub(crate) const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// Bytes of the frame by which a relay greets.
const GREETING_BYTES: usize = 45;

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.expect("it takes too long")
}

pub(crate) fn private(number: u8) -> NodePrivate {
    NodePrivate::from_bytes([number; 32])
}

pub(crate) fn key(number: u8) -> NodePublic {
    private(number).public()
}

pub(crate) struct World {
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) relay: Relay,
    pub(crate) stats: Arc<VerifyStats>,
    _stop: DropGuard,
    _follower: Option<AbortOnDropHandle<()>>,
}

impl World {
    pub(crate) fn new(asks: Asks, fail_open: bool) -> Self {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let verifier = Verifier::new(Options { asks, fail_open }).unwrap();
        let stop = CancellationToken::new();
        let private_key = DerpPrivate::from_bytes([0x52; 32]);
        let admission = verifier.admission();
        let relay = Relay::new(private_key, Arc::clone(&admission), stop.clone());
        let stats = Arc::clone(verifier.stats());
        let follower = verifier.spawn(relay.clone(), stop.clone());
        Self { admission, relay, stats, _stop: stop.drop_guard(), _follower: follower }
    }

    /// Logs a client in; `None` if it is refused.
    pub(crate) async fn join(&self, number: u8) -> Option<Client> {
        within(Client::log_in(self.relay.clone(), number)).await
    }

    /// Logs a client in, in a task of its own.
    pub(crate) fn joining(&self, number: u8) -> AbortOnDropHandle<Option<Client>> {
        let login = Client::log_in(self.relay.clone(), number);
        AbortOnDropHandle::new(tokio::spawn(login))
    }

    /// Waits until something is counted.
    pub(crate) async fn until(&self, holds: impl Fn(&VerifyStats) -> bool) {
        let wait = async {
            while !holds(&self.stats) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(wait).await;
    }
}

/// A client that is logged in.
pub(crate) struct Client(DuplexStream);

impl Client {
    async fn log_in(relay: Relay, number: u8) -> Option<Self> {
        let (mut ours, theirs) = tokio::io::duplex(64 << 10);
        let login = ClientLogin::new(&private(number), &relay.public_key()).unwrap();
        let remote = SocketAddr::from((SOURCE, 1234));
        tokio::spawn(async move {
            relay.serve_upgraded(theirs, Upgrade::Derp, Some(remote)).await;
        });
        ours.read_exact(&mut [0; GREETING_BYTES]).await.unwrap();
        let mut hello = Vec::new();
        login.encode_client_info([1; 24], &ClientInfo::default(), &mut hello);
        ours.write_all(&hello).await.unwrap();
        ours.read_u8().await.is_ok().then_some(Self(ours))
    }

    /// Waits until the relay has cut it.
    pub(crate) async fn cut(mut self) {
        within(self.0.read_to_end(&mut Vec::new())).await.unwrap();
    }
}
