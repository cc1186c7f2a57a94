//! From a region to a relay that has logged us in: the relays in their order, TCP, TLS, HTTP, login.

mod login;
mod tcp;
mod trust;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use mesh_derp::{FrameError, LoginError};
use mesh_keys::NodePrivate;
use mesh_wire::{DerpNode, DerpRegion};
use rustls::RootCertStore;
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::connection::{DisconnectCause, Link};

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
    /// It sent another frame than that of its next step.
    #[error("relay is out of step in the login")]
    OutOfStep,
    /// Its key or its box is of no use.
    #[error("login failed")]
    Login(#[from] LoginError),
    /// The operating system has no randomness to seal the login with.
    #[error("no randomness")]
    Random,
    /// It hung up before we were logged in, as one does that does not admit us.
    #[error("connection ended within the login")]
    Io(#[source] io::Error),
    /// Its share of [`CONNECT_TIMEOUT`] is over.
    #[error("login timed out")]
    Timeout,
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
        let name = ServerName::try_from(node.host_name.clone());
        let name = name.map_err(|_| ConnectError::ServerName)?;
        let config = trust::client_config(node, Arc::clone(&self.roots))?;
        let socket = tcp::dial(node).await?;
        let tls = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
        let mut io = tls.map_err(ConnectError::Tls)?;
        let input = login::log_in(&mut io, &node.host_name, &self.private).await?;
        Ok(Link { io, input })
    }
}
