//! From a region to a relay that has logged us in: the relays in their order, TCP, TLS, HTTP, login.

mod login;
mod tcp;
mod trust;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mesh_derp::{FrameError, LoginError, Rate};
use mesh_keys::{MeshKey, NodePrivate, NodePublic};
use mesh_wire::{DerpNode, DerpRegion};
use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::connection::{DisconnectCause, Link};

pub use trust::client_config as tls_config;

/// How long connecting to a region may take. Each relay gets its share of what is left, so that one which
/// hangs does not keep us from the next.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long name service and TCP may take of that for one relay.
///
/// Source: tailscale `derp/derphttp/derphttp_client.go`, `dialNodeTimeout`.
pub const DIAL_TIMEOUT: Duration = Duration::from_millis(1500);

/// Why a relay did not log us in.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The DERP map has no address for the relay, and forbids to ask for one, or has no port.
    #[error("relay has no usable address")]
    NoAddress,
    /// Its name cannot be resolved, or it does not answer.
    #[error("cannot reach the relay")]
    Tcp(#[source] io::Error),
    /// [`DIAL_TIMEOUT`] is over.
    #[error("relay cannot be reached in time")]
    DialTimeout,
    /// Neither its host name nor its certificate's name can be in a certificate.
    #[error("relay has no valid TLS server name")]
    ServerName,
    /// The pin of its certificate is not 64 hexadecimal digits.
    #[error("pin of the relay's certificate is malformed")]
    Pin,
    /// It speaks no TLS, or has a certificate that we do not trust.
    #[error("no trusted TLS connection")]
    Tls(#[source] io::Error),
    /// Its answer to the upgrade is no HTTP.
    #[error("relay does not speak HTTP")]
    Http(#[from] httparse::Error),
    /// Its answer to the upgrade is longer than any should be.
    #[error("head of the relay's answer is too long")]
    HeadTooLong,
    /// It does not upgrade to DERP.
    #[error("relay answered the upgrade with status {0}")]
    Status(u16),
    /// Its login frames cannot be read.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It has our own key: the address leads back to us.
    #[error("relay is ourselves")]
    Myself,
    /// It sent another frame than that of its next step.
    #[error("relay is out of step in the login")]
    OutOfStep,
    /// Its key or its box is of no use.
    #[error("login failed")]
    Login(#[from] LoginError),
    /// The operating system has no randomness to seal the login with.
    #[error("no randomness")]
    Random,
    /// It hung up, or the network failed, before we had told it who we are: that says nothing of us.
    #[error("connection ended before the login")]
    BeforeLogin(#[source] io::Error),
    /// It hung up after we had told it who we are, as one does that does not admit us.
    #[error("connection ended within the login")]
    WithinLogin(#[source] io::Error),
    /// Its share of [`CONNECT_TIMEOUT`] is over.
    #[error("login timed out")]
    Timeout,
}

/// What comes of a login.
#[derive(Debug)]
pub(crate) struct LoggedIn {
    /// The relay's key.
    relay: NodePublic,
    /// What was read already and comes after the login.
    input: BytesMut,
    /// What the relay will take from us, if it says.
    rate: Option<Rate>,
}

/// A region and what it takes to log in there.
pub(crate) struct Connector {
    pub(crate) region: Arc<DerpRegion>,
    pub(crate) private: NodePrivate,
    pub(crate) roots: Arc<RootCertStore>,
}

impl Connector {
    /// Logs in to the first relay of the region that lets us.
    pub(crate) async fn connect(&self) -> Result<Link<TlsStream<TcpStream>>, DisconnectCause> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let nodes: Vec<_> = self.region.nodes.iter().filter(|node| !node.stun_only).collect();
        let mut first_failure = None;
        let mut nodes_left = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        for node in nodes {
            let share = deadline.saturating_duration_since(Instant::now()) / nodes_left;
            nodes_left -= 1;
            let attempt = timeout(share, self.connect_node(node)).await;
            match attempt.unwrap_or(Err(ConnectError::Timeout)) {
                Ok(link) => return Ok(link),
                Err(source) => {
                    let region = self.region.region_id.0;
                    tracing::debug!(derp.region = region, node = node.name, %source, "relay refused");
                    let node = node.name.clone();
                    first_failure.get_or_insert(DisconnectCause::Connect { node, source });
                }
            }
        }
        Err(first_failure.unwrap_or(DisconnectCause::NoNode))
    }

    async fn connect_node(
        &self,
        node: &DerpNode,
    ) -> Result<Link<TlsStream<TcpStream>>, ConnectError> {
        let socket = tcp::dial(node).await?;
        let mut io = secure(node, Arc::clone(&self.roots), socket).await?;
        let login = login::log_in(&mut io, &node.host_name, &self.private, None).await?;
        Ok(Link { io, input: login.input, rate: login.rate })
    }
}

/// One relay and what it takes to be logged in there by the key of a mesh, as another relay of that mesh is.
#[derive(Debug, Clone)]
pub struct MeshLogin {
    /// The relay.
    pub node: DerpNode,
    /// The name or address to connect to instead of the relay's host name, if that is not how to reach it from here.
    pub dial_host: Option<String>,
    /// Who we are.
    pub private: NodePrivate,
    /// By which the relay knows that we are of its mesh.
    pub mesh_key: MeshKey,
    /// Where its certificate must lead if it is neither pinned nor trusted for tests. May be empty.
    pub roots: Arc<RootCertStore>,
}

/// A connection on which a relay has logged us in.
#[derive(Debug)]
pub struct MeshConnection {
    /// The connection.
    pub io: TlsStream<TcpStream>,
    /// What was read of it already and comes after the login.
    pub input: BytesMut,
    /// The relay's key.
    pub relay: NodePublic,
    /// The relay's address.
    pub addr: SocketAddr,
}

impl MeshLogin {
    /// Logs in, in no more than [`CONNECT_TIMEOUT`]. With a wrong key the relay takes us for an ordinary client, and
    /// hangs up as soon as we behave otherwise.
    ///
    /// # Errors
    /// [`ConnectError::Myself`] before anything is sealed to the relay.
    pub async fn connect(&self) -> Result<MeshConnection, ConnectError> {
        timeout(CONNECT_TIMEOUT, self.attempt()).await.unwrap_or(Err(ConnectError::Timeout))
    }

    async fn attempt(&self) -> Result<MeshConnection, ConnectError> {
        let host_name = &self.node.host_name;
        let dial_host = self.dial_host.as_ref().unwrap_or(host_name).clone();
        let socket = tcp::dial(&DerpNode { host_name: dial_host, ..self.node.clone() }).await?;
        let addr = socket.peer_addr().map_err(ConnectError::Tcp)?;
        let mut io = secure(&self.node, Arc::clone(&self.roots), socket).await?;
        let login = login::log_in(&mut io, host_name, &self.private, Some(&self.mesh_key));
        let LoggedIn { relay, input, rate: _ } = login.await?;
        Ok(MeshConnection { io, input, relay, addr })
    }
}

async fn secure(
    node: &DerpNode,
    roots: Arc<RootCertStore>,
    socket: TcpStream,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let name = ServerName::try_from(node.host_name.clone());
    let name = name.map_err(|_| ConnectError::ServerName)?;
    let config = trust::client_config(node, roots)?;
    let tls = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
    tls.map_err(ConnectError::Tls)
}
