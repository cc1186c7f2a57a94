//! The relay: its two doors and what all its connections share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use mesh_derp::{ServerLogin, Table};
use mesh_keys::{DerpPrivate, NodePublic};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::connection::{self, ConnectionError};
use crate::door;
use crate::listener::{self, ServiceHandle};
use crate::stats::RelayStats;
use crate::stun;
use crate::wide::Wide;

/// How long a client may take from its upgrade until its login is there, however many bytes it sends.
pub const LOGIN_DEADLINE: Duration = Duration::from_secs(10);

/// Connections that have not logged in, over all doors. The next ones wait until a place is free.
///
/// One of them may hold 256 KiB of a login, so that all together hold 256 MiB at the worst.
pub const PRE_LOGIN_MAX: usize = 1024;

/// Says which nodes may use a relay. Asked at every login, and never after: who is to be let go is cut by
/// [`Relay::disconnect`].
pub trait Admission: Send + Sync + 'static {
    /// Whether the node with this key may use the relay.
    ///
    /// It is asked while no other client can join or leave: it must answer at once and from memory, and not
    /// call the relay.
    fn admits(&self, key: &NodePublic) -> bool;
}

impl<F: Fn(&NodePublic) -> bool + Send + Sync + 'static> Admission for F {
    fn admits(&self, key: &NodePublic) -> bool {
        self(key)
    }
}

/// A DERP relay. Its clones are the same relay.
#[derive(Clone)]
pub struct Relay {
    shared: Arc<Shared>,
}

/// What all connections of a relay share.
pub(crate) struct Shared {
    pub(crate) login: ServerLogin,
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) table: Arc<Table>,
    pub(crate) stats: Arc<RelayStats>,
    pub(crate) cancel: CancellationToken,
    pre_login: Arc<Semaphore>,
}

impl Relay {
    /// A relay with this key, for the nodes that `admission` admits, until `cancel`.
    pub fn new(
        private_key: DerpPrivate,
        admission: Arc<dyn Admission>,
        cancel: CancellationToken,
    ) -> Self {
        let shared = Shared {
            login: ServerLogin::new(private_key),
            admission,
            table: Arc::default(),
            stats: Arc::default(),
            cancel,
            pre_login: Arc::new(Semaphore::new(PRE_LOGIN_MAX)),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The public key that clients know the relay by.
    pub fn public_key(&self) -> NodePublic {
        self.shared.login.public_key()
    }

    /// What the relay has counted so far.
    pub fn stats(&self) -> &Arc<RelayStats> {
        &self.shared.stats
    }

    /// Whether a node with this key is connected.
    pub fn is_connected(&self, key: &NodePublic) -> bool {
        self.shared.table.is_connected(key)
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
    /// The paths are `/derp`, `/derp/probe`, `/derp/latency-check`, `/generate_204` and `/robots.txt`. With
    /// status 101 the connection is upgraded and belongs to [`Self::serve_upgraded`].
    pub fn answer<B>(&self, request: &http::Request<B>) -> Option<http::Response<&'static str>> {
        door::answer(&self.public_key(), request)
    }

    /// Serves a connection that another HTTP server has upgraded for [`Self::answer`], until it ends.
    ///
    /// The connection is waited for, so the caller decides which task that is.
    pub async fn serve_upgraded<IO>(&self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(permit) = self.enter().await else { return };
        let shared = Arc::clone(&self.shared);
        let io = Wide::new(io);
        log_end(connection::serve(shared, io, BytesMut::new(), Vec::new(), permit).await);
    }

    /// Serves HTTP/1.1 on a connection, and DERP once it is upgraded, until it ends.
    ///
    /// Unlike a common HTTP server this can do without the answer to an upgrade, as clients ask for that saw
    /// the [`crate::meta_certificate`] (fast start).
    pub async fn serve_connection<IO>(&self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(permit) = self.enter().await else { return };
        log_end(door::serve(Arc::clone(&self.shared), Wide::new(io), permit).await);
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
        listener::spawn(Arc::clone(&self.shared), addr, tls).await
    }

    /// Answers STUN requests on the UDP address `addr`, until the relay is cancelled.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn spawn_stun_listener(&self, addr: SocketAddr) -> std::io::Result<ServiceHandle> {
        stun::spawn(Arc::clone(&self.shared.stats), addr, self.shared.cancel.clone()).await
    }

    async fn enter(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.shared.enter().await?;
        self.shared.stats.connections.fetch_add(1, Ordering::Relaxed);
        Some(place)
    }
}

impl Shared {
    /// Waits for a place among the connections that have not logged in; `None` once the relay is cancelled.
    pub(crate) async fn enter(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.pre_login).acquire_owned();
        self.cancel.run_until_cancelled(place).await?.ok()
    }

    /// Waits for `future`, but not beyond the deadline nor the relay's end.
    pub(crate) async fn within<T>(
        &self,
        deadline: Duration,
        future: impl Future<Output = Result<T, ConnectionError>>,
    ) -> Result<T, ConnectionError> {
        let limited = self.cancel.run_until_cancelled(timeout(deadline, future)).await;
        limited.ok_or(ConnectionError::Cancelled)?.map_err(|_| ConnectionError::Timeout)?
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("key", &self.public_key()).finish_non_exhaustive()
    }
}

/// Ends the tale of a connection: what hostile or broken clients do is of interest to nobody else.
pub(crate) fn log_end(end: Result<(), ConnectionError>) {
    match end {
        Ok(()) => tracing::debug!("derp connection ended"),
        Err(error) => tracing::debug!(%error, "derp connection ended"),
    }
}
