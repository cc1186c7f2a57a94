//! Our connections to the other relays of the mesh: one for each, kept up.
//!
//! By it we hear which clients the other relay has, and send what ours have for them; what its clients send comes by
//! its own connection to us, which is a client like any other that has the mesh key.
//!
//! Source: tailscale `cmd/derper/mesh.go`, `derp/derphttp/mesh_client.go`.

mod key_file;
mod peer;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use mesh_derp::{Batch, Client, DropReason, MeshLink, MeshLinkError, PeerPresent};
use mesh_derp_client::{ConnectError, MeshConnection, MeshLogin};
use rustls::RootCertStore;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::listener::set_socket_options;
use crate::relay::{Relay, Shared};
use crate::stats::RelayStats;
use crate::writer::{WRITE_BYTES, jitter_below, write_all};

pub use key_file::{MeshKeyFileError, read_mesh_key};
pub use peer::{MeshPeer, ParseMeshPeerError, PeerCertificate};

/// How long a write to another relay, or to somebody else with the mesh key, may make no progress until the
/// connection is cut.
///
/// Source: tailscale `derp/derpserver/derpserver.go`, `privilegedWriteTimeout`.
pub const MESH_WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// How long another relay may send no frame until its connection is dead. Relays send one every 65 seconds at least.
const SILENCE_MAX: Duration = Duration::from_mins(2);

/// Wait after the first failure.
const WAIT_MIN: Duration = Duration::from_secs(1);

/// Longest wait after a failure.
///
/// Source: tailscale `derp/derphttp/mesh_client.go`, `retryInterval`.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Spreads the attempts of relays that lost each other at once.
const WAIT_JITTER: Duration = Duration::from_millis(500);

/// Bytes that are read at once: who comes and goes.
const READ_BYTES: usize = 16 << 10;

/// A connection to another relay that is kept up until this is dropped, or the relay is cancelled.
#[derive(Debug)]
pub struct MeshHandle(AbortOnDropHandle<()>);

impl MeshHandle {
    /// Waits until the relay was cancelled, or the other relay has turned out to be this one.
    pub async fn stopped(self) {
        // Nothing to tell: the task cannot fail, and a panic in it has been reported.
        let _ = self.0.await;
    }
}

/// Why there is no connection to another relay, or no more.
#[derive(Debug, Error)]
enum MeshError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("it hung up instead of telling who is there: its mesh key may be another")]
    NotAccepted(#[source] EndError),
    #[error("connection ended")]
    Ended(#[source] EndError),
}

/// Why a logged-in connection to another relay ended.
#[derive(Debug, Error)]
enum EndError {
    #[error(transparent)]
    Link(#[from] MeshLinkError),
    #[error("no frame in {} seconds", SILENCE_MAX.as_secs())]
    Silence,
    #[error("takes in nothing for {} seconds", MESH_WRITE_DEADLINE.as_secs())]
    WriteTimeout,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Relay {
    /// Keeps a connection to another relay of the mesh, so that the clients of this one reach those of that. For the
    /// other direction that one must do the same.
    ///
    /// `roots` is where the certificates of relays must lead that are neither pinned nor any. `None` if this relay has
    /// no mesh key.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn_mesh(&self, peer: &MeshPeer, roots: Arc<RootCertStore>) -> Option<MeshHandle> {
        let (private, mesh_key) = self.shared.login.as_client()?;
        let (node, dial_host) = (peer.node(), peer.dial_host.clone());
        let login = MeshLogin { node, dial_host, private, mesh_key: mesh_key.clone(), roots };
        let dialer = Dialer { shared: Arc::clone(&self.shared), name: peer.to_string(), login };
        Some(MeshHandle(AbortOnDropHandle::new(tokio::spawn(dialer.run()))))
    }
}

/// What keeps up the connection to one relay.
struct Dialer {
    shared: Arc<Shared>,
    name: String,
    login: MeshLogin,
}

impl Dialer {
    async fn run(self) {
        let cancel = self.shared.cancel.clone();
        cancel.run_until_cancelled(self.keep()).await;
    }

    /// Connects again and again. Ends if the other relay turns out to be this one.
    async fn keep(&self) {
        let relay = &self.name;
        let mut wait = WAIT_MIN;
        let mut is_told = false;
        loop {
            let began_at = Instant::now();
            let Err(error) = self.connect().await;
            if matches!(error, MeshError::Connect(ConnectError::Myself)) {
                tracing::info!(relay, "mesh: this relay is among those that it is to mesh with");
                return;
            }
            let was_there = matches!(error, MeshError::Ended(_));
            let error = tell(&error);
            // Once is enough until it has been there again.
            if is_told && !was_there {
                tracing::debug!(relay, error, "mesh: relay cannot be reached");
            } else {
                tracing::warn!(relay, error, "mesh: relay cannot be reached");
            }
            is_told = !was_there;
            // A relay that lets us in only to hang up is left alone for longer each time.
            if was_there && began_at.elapsed() >= WAIT_MAX {
                wait = WAIT_MIN;
            }
            sleep(wait + jitter_below(WAIT_JITTER)).await;
            wait = WAIT_MAX.min(2 * wait);
        }
    }

    /// Connects, and serves the connection until it ends.
    async fn connect(&self) -> Result<Infallible, MeshError> {
        let MeshConnection { io, input, relay, addr } = self.login.connect().await?;
        set_socket_options(io.get_ref().0).map_err(ConnectError::Tcp)?;
        let relay = PeerPresent { key: relay, addr, flags: PeerPresent::MESH_PEER };
        let (table, own) = (Arc::clone(&self.shared.table), self.shared.login.public_key());
        let link = MeshLink::new(table, own, relay);
        let mut open = Open { stats: &self.shared.stats, name: &self.name, link, is_up: false };
        let Err(error) = serve(io, &input, &mut open).await;
        Err(if open.is_up { MeshError::Ended(error) } else { MeshError::NotAccepted(error) })
    }
}

/// A connection to another relay while it is there.
struct Open<'d> {
    stats: &'d RelayStats,
    name: &'d str,
    link: MeshLink,
    /// Whether the relay has accepted us, which has been told.
    is_up: bool,
}

impl Open<'_> {
    fn take(&mut self, chunk: &[u8]) -> Result<(), EndError> {
        self.link.take(chunk)?;
        if !self.is_up && self.link.is_accepted() {
            self.is_up = true;
            self.stats.mesh_peers.fetch_add(1, Ordering::Relaxed);
            tracing::info!(relay = self.name, "mesh: connected");
        }
        Ok(())
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.stats.add(&self.link.leave());
        if self.is_up {
            self.stats.mesh_peers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

async fn serve(
    io: impl AsyncRead + AsyncWrite,
    input: &[u8],
    open: &mut Open<'_>,
) -> Result<Infallible, EndError> {
    let (relay, stats) = (Arc::clone(open.link.relay()), open.stats);
    let (mut reader, mut writer) = tokio::io::split(io);
    open.take(input)?;
    tokio::select! {
        biased;
        // First, for it gives way after each write.
        end = write(&mut writer, &relay, stats) => end,
        end = read(&mut reader, open) => end,
    }
}

async fn read(
    io: &mut (impl AsyncRead + Unpin),
    open: &mut Open<'_>,
) -> Result<Infallible, EndError> {
    let mut chunk = vec![0; READ_BYTES];
    loop {
        let read = timeout(SILENCE_MAX, io.read(&mut chunk)).await;
        match read.map_err(|_| EndError::Silence)?? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            bytes => open.take(&chunk[..bytes])?,
        }
    }
}

/// Writes what waits for the relay, as much at once as there is and a write takes.
async fn write(
    io: &mut (impl AsyncWrite + Unpin),
    relay: &Client,
    stats: &RelayStats,
) -> Result<Infallible, EndError> {
    let mut out = Vec::new();
    MeshLink::encode_first(&mut out);
    let mut underway = Underway { stats, batch: Batch::default() };
    loop {
        let written = write_all(io, &out, MESH_WRITE_DEADLINE).await;
        written.map_err(|_| EndError::WriteTimeout)??;
        underway.batch = Batch::default();
        out.clear();
        yield_now().await;
        underway.batch = next_batch(relay, &mut out).await;
    }
}

/// Packets that are being written. Those of a write that comes to nothing count as dropped.
struct Underway<'s> {
    stats: &'s RelayStats,
    batch: Batch,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.stats.dropped(DropReason::WriteFailed).add(&self.batch);
    }
}

/// Waits until there is something to write, and appends it to `out`.
async fn next_batch(relay: &Client, out: &mut Vec<u8>) -> Batch {
    poll_fn(|cx| {
        relay.register(cx.waker());
        let batch = relay.drain(out, WRITE_BYTES);
        if out.is_empty() { Poll::Pending } else { Poll::Ready(batch) }
    })
    .await
}

/// An error with its causes.
fn tell(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}
