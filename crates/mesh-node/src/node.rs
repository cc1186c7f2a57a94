//! The handle of a node.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mesh_stack::{BindError, Network, Stack, TcpListener, TcpStream, UdpSocket};
use mesh_wire::{CapMap, DerpRegionId, UserProfile};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::builder::Builder;
use crate::control::{Control, Phase};
use crate::engine::{Engine, Request};

/// How long a node that has joined waits for its relay before it counts as up without.
pub const RELAY_WAIT: Duration = Duration::from_secs(3);

/// Why something that was asked of a node cannot be had.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The control server refuses the node.
    #[error("control server refuses the node: {0}")]
    Refused(String),
    /// The node was closed.
    #[error("node is closed")]
    Closed,
    /// A text is not `host:port`.
    #[error("`{0}` is not host:port")]
    Address(String),
    /// The tailnet has no such name.
    #[error("no node is named `{0}`")]
    UnknownName(String),
    /// Nobody in the tailnet has or routes the address.
    #[error("no peer has the address {0}")]
    NoPeer(IpAddr),
    /// The connection failed.
    #[error("cannot connect to {0}")]
    Connect(SocketAddr, #[source] io::Error),
}

/// Why a node does not listen.
pub type ListenError = BindError;

/// Who has an address.
#[derive(Debug, Clone, PartialEq)]
pub struct WhoIs {
    /// The node, as the control server tells it.
    pub node: mesh_wire::Node,
    /// Its owner; of tagged nodes a stand-in.
    pub user_profile: Option<UserProfile>,
    /// The application capabilities that policy gives it towards this node.
    pub cap_map: CapMap,
}

/// What there is to tell of a node and its peers.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The node itself; `None` before the control server has told it.
    pub node: Option<mesh_wire::Node>,
    /// The name of the tailnet.
    pub tailnet: String,
    /// The home region.
    pub home: Option<DerpRegionId>,
    /// The peers by name.
    pub peers: Vec<PeerStatus>,
}

/// What there is to tell of a peer.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerStatus {
    /// Its full name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether the control server sees it; `None` is unknown.
    pub online: Option<bool>,
    /// Whether data was sent to it a short while ago.
    pub is_active: bool,
    /// Where it is reached, if directly and surely.
    pub direct: Option<SocketAddr>,
    /// The relay's region through which data goes, if any does.
    pub relay: Option<DerpRegionId>,
    /// The round trip of the direct way.
    pub latency: Option<Duration>,
    /// How long ago the last handshake was.
    pub last_handshake: Option<Duration>,
}

/// A node of a tailnet. It leaves when this is dropped.
#[derive(Debug)]
pub struct Node {
    stack: Stack,
    requests: mpsc::Sender<Request>,
    watched: Watched,
    tasks: Tasks,
}

/// What can be waited for.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) addresses: watch::Receiver<Vec<IpAddr>>,
    pub(crate) has_relay: watch::Receiver<bool>,
}

/// The node's two tasks, which end with the handle.
pub(crate) type Tasks = [AbortOnDropHandle<()>; 2];

pub(crate) fn spawn_tasks(engine: Engine, control: Control) -> Tasks {
    let engine = AbortOnDropHandle::new(tokio::spawn(engine.run()));
    [engine, AbortOnDropHandle::new(tokio::spawn(control.run()))]
}

impl Node {
    /// What a node is to be told first.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(
        stack: Stack,
        requests: mpsc::Sender<Request>,
        watched: Watched,
        tasks: Tasks,
    ) -> Self {
        Self { stack, requests, watched, tasks }
    }

    /// Waits until the node has joined, knows its addresses and can be reached: through a relay, or if that takes longer than
    /// [`RELAY_WAIT`], as far as there are direct ways.
    ///
    /// # Errors
    /// [`NodeError::Refused`] as soon as the control server says no. Waits for a login that is needed; see
    /// [`Self::needs_login`].
    pub async fn up(&self) -> Result<Status, NodeError> {
        let Watched { mut phase, mut addresses, mut has_relay } = self.watched.clone();
        while addresses.borrow_and_update().is_empty() {
            if let Phase::Refused(error) = &*phase.borrow_and_update() {
                return Err(NodeError::Refused(error.clone()));
            }
            tokio::select! {
                changed = phase.changed() => changed.map_err(|_| NodeError::Closed)?,
                changed = addresses.changed() => changed.map_err(|_| NodeError::Closed)?,
            }
        }
        if let Ok(Err(_)) = timeout(RELAY_WAIT, has_relay.wait_for(|has_relay| *has_relay)).await {
            return Err(NodeError::Closed);
        }
        self.status().await
    }

    /// Waits until the control server wants somebody to log in, and returns the URL for that.
    pub async fn needs_login(&self) -> Result<String, NodeError> {
        let mut phase = self.watched.phase.clone();
        let is_login = |phase: &Phase| matches!(phase, Phase::NeedsLogin(_));
        let found = phase.wait_for(is_login).await.map_err(|_| NodeError::Closed)?;
        match &*found {
            Phase::NeedsLogin(url) => Ok(url.clone()),
            Phase::Starting | Phase::NeedsMachineAuth | Phase::Refused(_) | Phase::Connected => {
                Err(NodeError::Closed)
            }
        }
    }

    /// The node's own addresses; none before it has joined.
    pub fn ips(&self) -> Vec<IpAddr> {
        self.watched.addresses.borrow().clone()
    }

    /// Listens on a TCP port of all own addresses; 0 takes a free one from 10002 to 19999.
    pub fn listen(&self, port: u16) -> Result<TcpListener, ListenError> {
        self.stack.listen_tcp(Network::Tcp, None, port)
    }

    /// Listens for one family, or at one address, which may be one that the node routes for others.
    pub fn listen_on(
        &self,
        network: Network,
        ip: Option<IpAddr>,
        port: u16,
    ) -> Result<TcpListener, ListenError> {
        self.stack.listen_tcp(network, ip, port)
    }

    /// Takes datagrams to one of the own addresses; port 0 takes a free one.
    pub fn listen_packet(&self, local: SocketAddr) -> Result<UdpSocket, ListenError> {
        self.stack.bind_udp(local)
    }

    /// Connects to `host:port` in the tailnet; the host is a name or an address. How long that may take is the caller's
    /// to say: a peer that does not answer is called for as long as this waits.
    pub async fn dial(&self, address: &str) -> Result<TcpStream, NodeError> {
        if self.ips().is_empty() {
            self.up().await?;
        }
        let to = self.resolve(address).await?;
        let routes = self.ask(|answer| Request::Routes(to.ip(), answer)).await?;
        if !routes {
            return Err(NodeError::NoPeer(to.ip()));
        }
        self.stack.connect_tcp(None, to).await.map_err(|error| NodeError::Connect(to, error))
    }

    /// Who has an address, or routes it; `None` if nobody does.
    pub async fn who_is(&self, address: IpAddr) -> Result<Option<WhoIs>, NodeError> {
        self.ask(|answer| Request::WhoIs(address, answer)).await
    }

    /// What there is to tell.
    pub async fn status(&self) -> Result<Status, NodeError> {
        self.ask(Request::Status).await
    }

    /// Ends the node, and returns when nothing of it runs any more: its state may then be used by another.
    pub async fn close(self) {
        for task in self.tasks {
            task.abort();
            // Whether it was cancelled or had ended does not matter.
            task.await.ok();
        }
    }

    async fn resolve(&self, address: &str) -> Result<SocketAddr, NodeError> {
        if let Ok(address) = address.parse() {
            return Ok(address);
        }
        let parts =
            address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port): (&str, u16) =
            parts.ok_or_else(|| NodeError::Address(address.to_owned()))?;
        let found = self.ask(|answer| Request::Resolve(host.to_owned(), answer)).await?;
        let first = found.first().ok_or_else(|| NodeError::UnknownName(host.to_owned()))?;
        Ok(SocketAddr::new(*first, port))
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, NodeError> {
        let (sender, answer) = oneshot::channel();
        self.requests.send(request(sender)).await.map_err(|_| NodeError::Closed)?;
        answer.await.map_err(|_| NodeError::Closed)
    }
}
