//! The relay: its two doors and what all its connections share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use mesh_derp::{ServerLogin, Table};
use mesh_keys::{DerpPrivate, MeshKey, NodePublic};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::connection::ConnectionError;
use crate::door::{self, Answer, Upgrade};
use crate::limits::{Limits, LiveLimits};
use crate::listener::{self, ServiceHandle};
use crate::places::{Place, Places};
use crate::stats::RelayStats;
use crate::stun;
use crate::wide::Wide;
use crate::workers::SharedWorkers;

/// How long a client may take from its upgrade until its login is there, however many bytes it sends.
pub const LOGIN_DEADLINE: Duration = Duration::from_secs(10);

/// A DERP relay. Its clones are the same relay.
#[derive(Clone)]
pub struct Relay {
    pub(crate) shared: Arc<Shared>,
}

/// What all connections of a relay share.
pub(crate) struct Shared {
    pub(crate) login: ServerLogin,
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) table: Arc<Table>,
    pub(crate) stats: Arc<RelayStats>,
    pub(crate) cancel: CancellationToken,
    /// Ends before `cancel` where the relay is drained: nobody comes in any more, and STUN is silent.
    pub(crate) doors: CancellationToken,
    pub(crate) limits: LiveLimits,
    pub(crate) places: Places,
    pub(crate) workers: SharedWorkers,
}

impl Relay {
    /// A relay with this key, for the nodes that `admission` admits, until `cancel`.
    pub fn new(
        private_key: DerpPrivate,
        admission: Arc<dyn Admission>,
        cancel: CancellationToken,
    ) -> Self {
        Self::with_mesh_key(private_key, None, admission, cancel)
    }

    /// Like [`Self::new`], a relay of the mesh whose relays have `mesh_key` in common. Whoever has that key is admitted,
    /// may see who is connected, and send in their name.
    ///
    /// For the connections to other relays see [`Self::spawn_mesh`].
    pub fn with_mesh_key(
        private_key: DerpPrivate,
        mesh_key: Option<MeshKey>,
        admission: Arc<dyn Admission>,
        cancel: CancellationToken,
    ) -> Self {
        let shared = Shared {
            login: ServerLogin::new(private_key, mesh_key),
            admission,
            table: Arc::default(),
            stats: Arc::default(),
            doors: cancel.child_token(),
            cancel,
            limits: LiveLimits::default(),
            places: Places::default(),
            workers: SharedWorkers::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The public key that clients know the relay by.
    pub fn public_key(&self) -> NodePublic {
        self.shared.login.public_key()
    }

    /// Sets what clients may use, from here on. Those that are connected are held to it too.
    pub fn set_limits(&self, limits: Limits) {
        self.shared.limits.set(limits);
    }

    /// What the relay has counted so far.
    pub fn stats(&self) -> &Arc<RelayStats> {
        &self.shared.stats
    }

    /// Whether a node with this key is connected.
    pub fn is_connected(&self, key: &NodePublic) -> bool {
        self.shared.table.is_connected(key)
    }

    /// The keys of all nodes that are connected, in no order.
    pub fn connected(&self) -> Vec<NodePublic> {
        self.shared.table.keys()
    }

    /// Cuts all connections of a node at once, and says how many there were.
    ///
    /// Whoever removes a node first sees to it that it is no longer admitted, and then calls this: after
    /// that no connection of the node is left, not even one that was logging in meanwhile.
    pub fn disconnect(&self, key: &NodePublic) -> usize {
        self.shared.table.cut(key)
    }

    /// Answers an HTTP request for one of the relay's paths; `None` for all others.
    ///
    /// The paths are `/`, `/derp`, `/derp/probe`, `/derp/latency-check`, `/generate_204` and `/robots.txt`. With an
    /// [`Answer::upgrade`] the connection is upgraded and belongs to [`Self::serve_upgraded`].
    pub fn answer<B>(&self, request: &http::Request<B>) -> Option<Answer> {
        door::answer(&self.public_key(), request)
    }

    /// Serves a connection that another HTTP server has upgraded for [`Self::answer`], until it ends.
    ///
    /// `remote` is where the client is, if that is known. The connection is waited for, so the caller decides which
    /// task that is.
    pub async fn serve_upgraded<IO>(&self, io: IO, upgrade: Upgrade, remote: Option<SocketAddr>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shared = &self.shared;
        let (place, io, input, out) =
            (shared.enter(remote), Wide::new(io), BytesMut::new(), Vec::new());
        let end = upgrade.serve(Arc::clone(shared), io, input, out, place).await;
        shared.end(end);
    }

    /// Serves HTTP/1.1 on a connection, and DERP once it is upgraded, until it ends.
    ///
    /// Unlike a common HTTP server this can do without the answer to an upgrade, as clients ask for that saw
    /// the [`crate::meta_certificate`] (fast start).
    pub async fn serve_connection<IO>(&self, io: IO, remote: Option<SocketAddr>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shared = &self.shared;
        let place = shared.enter(remote);
        shared.end(door::serve(Arc::clone(shared), Wide::new(io), place).await);
    }

    /// Listens for TLS on `addr` and serves whoever comes, until the relay is cancelled.
    ///
    /// [`crate::Certificate::server_config`] makes a fitting `tls`.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn spawn_tls_listener(
        &self,
        addr: SocketAddr,
        tls: rustls::ServerConfig,
    ) -> std::io::Result<ServiceHandle> {
        listener::spawn(Arc::clone(&self.shared), addr, Some(tls)).await
    }

    /// Listens on `addr` without TLS, for a proxy that does it or for the check of port 80, and serves whoever
    /// comes, until the relay is cancelled.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn spawn_plain_listener(&self, addr: SocketAddr) -> std::io::Result<ServiceHandle> {
        listener::spawn(Arc::clone(&self.shared), addr, None).await
    }

    /// Answers STUN requests on the UDP address `addr`, until the relay is cancelled.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn spawn_stun_listener(&self, addr: SocketAddr) -> std::io::Result<ServiceHandle> {
        stun::spawn(Arc::clone(&self.shared.stats), addr, self.shared.doors.clone()).await
    }
}

impl Shared {
    /// Takes a place among the connections that have not logged in.
    pub(crate) fn enter(&self, remote: Option<SocketAddr>) -> Place {
        self.stats.connections.fetch_add(1, Ordering::Relaxed);
        self.places.enter(remote, self.limits.get().pre_login_max)
    }

    /// Waits for `future` on behalf of a connection that has not logged in: not beyond the deadline nor the relay's
    /// end, and as long as it has its place.
    pub(crate) async fn within<T>(
        &self,
        place: &Place,
        deadline: Duration,
        future: impl Future<Output = Result<T, ConnectionError>>,
    ) -> Result<T, ConnectionError> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(ConnectionError::Cancelled),
            () = place.lost() => Err(ConnectionError::Displaced),
            result = timeout(deadline, future) => result.map_err(|_| ConnectionError::Timeout)?,
        }
    }

    /// Ends the tale of a connection: what hostile or broken clients do is counted, and of interest to nobody else.
    pub(crate) fn end(&self, end: Result<(), ConnectionError>) {
        let Err(error) = end else { return tracing::debug!("derp connection ended") };
        tracing::debug!(%error, "derp connection ended");
        if matches!(error, ConnectionError::WriteTimeout) {
            self.stats.write_timeouts.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(refusal) = error.refusal() {
            self.stats.refuse(refusal);
        }
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("key", &self.public_key()).finish_non_exhaustive()
    }
}
