//! The handle of a node.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mesh_stack::{BindError, Network, Stack, TcpListener, UdpListener, UdpSocket};
use mesh_wire::{CapMap, DerpRegionId, UserId, UserProfile};
use thiserror::Error;
use tokio::net::lookup_host;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::builder::Builder;
use crate::control::{Command, Control, Phase};
use crate::core::{NetcheckReport, Pong};
use crate::engine::{Engine, Request};
use crate::host::is_of_tailnet;
use crate::pinger::{PingKind, Pinger};
use crate::state::StateError;
use crate::stream::Stream;
use crate::watch::{State, Watch, WatchEvent};

/// How long a node that has joined waits for its relay before it counts as up without.
pub const RELAY_WAIT: Duration = Duration::from_secs(3);

/// Why something that was asked of a node cannot be had.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The control server refuses the node.
    #[error("control server refuses the node: {0}")]
    Refused(String),
    /// The node was logged out. [`Node::reauthenticate`] brings it back.
    #[error("node is logged out")]
    LoggedOut,
    /// The node has left, but the control server was not told, and shows it until its key expires.
    #[error("node is logged out, but the control server could not be told")]
    NotTold(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A new key cannot be had, or cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// The node was closed.
    #[error("node is closed")]
    Closed,
    /// A text is not `host:port`.
    #[error("`{0}` is not host:port")]
    Address(String),
    /// Neither the tailnet nor the machine's network knows the name.
    #[error("no node is named `{0}`, and no other host")]
    UnknownName(String),
    /// Nobody in the tailnet has or routes the address.
    #[error("no peer has the address {0}")]
    NoPeer(IpAddr),
    /// A ping was not answered.
    #[error("{0} does not answer")]
    NoAnswer(IpAddr),
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
    /// The owners of the node and its peers.
    pub users: BTreeMap<UserId, UserProfile>,
    /// The peers by name.
    pub peers: Vec<PeerStatus>,
}

/// What there is to tell of a peer.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerStatus {
    /// The peer, as the control server tells it.
    pub node: mesh_wire::Node,
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
    /// Bytes that came from it, as datagrams of its tunnel.
    pub rx_bytes: u64,
    /// Bytes that were sent to it, as datagrams of its tunnel.
    pub tx_bytes: u64,
}

/// A node of a tailnet. It leaves when this is dropped.
#[derive(Debug)]
pub struct Node {
    stack: Stack,
    requests: mpsc::Sender<Request>,
    commands: mpsc::Sender<Command>,
    watched: Watched,
    /// None once the node was closed.
    tasks: Mutex<Option<Tasks>>,
}

/// What can be waited for.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) addresses: watch::Receiver<Vec<IpAddr>>,
    pub(crate) has_relay: watch::Receiver<bool>,
    pub(crate) events: broadcast::Sender<WatchEvent>,
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
        commands: mpsc::Sender<Command>,
        watched: Watched,
        tasks: Tasks,
    ) -> Self {
        Self { stack, requests, commands, watched, tasks: Mutex::new(Some(tasks)) }
    }

    /// Waits until the node has joined, knows its addresses and can be reached: through a relay, or if that takes longer than
    /// [`RELAY_WAIT`], as far as there are direct ways.
    ///
    /// # Errors
    /// [`NodeError::Refused`] as soon as the control server says no, [`NodeError::LoggedOut`] after [`Self::logout`]. Waits for a
    /// login that is needed; see [`Self::needs_login`].
    pub async fn up(&self) -> Result<Status, NodeError> {
        let Watched { mut phase, mut addresses, mut has_relay, .. } = self.watched.clone();
        while addresses.borrow_and_update().is_empty() {
            match &*phase.borrow_and_update() {
                Phase::Refused(error) => return Err(NodeError::Refused(error.clone())),
                Phase::LoggedOut => return Err(NodeError::LoggedOut),
                Phase::Starting
                | Phase::NeedsLogin(_)
                | Phase::NeedsMachineAuth
                | Phase::Connected => {}
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
            Phase::Starting
            | Phase::NeedsMachineAuth
            | Phase::Refused(_)
            | Phase::Connected
            | Phase::LoggedOut => Err(NodeError::Closed),
        }
    }

    /// Leaves the tailnet, and forgets the node key: peers lose the node at once, and an ephemeral one is deleted. It stays away
    /// until [`Self::reauthenticate`]; when it is next built it joins as a new node would, with its auth key if it has one.
    ///
    /// # Errors
    /// [`NodeError::NotTold`] if the control server cannot be told, or does not like it. The node has left all the same.
    pub async fn logout(&self) -> Result<(), NodeError> {
        self.order(Command::Logout).await
    }

    /// Logs in anew, with a new node key in place of the one in use, which stays in use until then. Returns when the control server
    /// has taken the key: that may need somebody to log in, see [`Self::needs_login`]. Who stops waiting does not stop the login.
    ///
    /// # Errors
    /// [`NodeError::Refused`] if the control server says no. The key in use is then as good as before.
    pub async fn reauthenticate(&self) -> Result<(), NodeError> {
        self.order(Command::Reauthenticate).await
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

    /// Listens for UDP, as one stream of datagrams for each source; else as [`Self::listen_on`].
    pub fn listen_udp(
        &self,
        network: Network,
        ip: Option<IpAddr>,
        port: u16,
    ) -> Result<UdpListener, ListenError> {
        self.stack.listen_udp(network, ip, port)
    }

    /// Takes TCP connections that nobody listens for, to own addresses and to what the node routes, if `decide` says so when it
    /// is told source and destination. It is asked for every connection and must be quick. The listener ends it.
    pub fn register_fallback(
        &self,
        decide: impl Fn(SocketAddr, SocketAddr) -> bool + Send + 'static,
    ) -> Result<TcpListener, ListenError> {
        self.stack.register_fallback(decide)
    }

    /// Takes datagrams to one of the own addresses; port 0 takes a free one.
    pub fn listen_packet(&self, local: SocketAddr) -> Result<UdpSocket, ListenError> {
        self.stack.bind_udp(local)
    }

    /// Connects to `host:port`; the host is a name or an address. What is in the tailnet is reached through it, all else over
    /// the machine's own network. How long that may take is the caller's to say: a peer that does not answer is called for
    /// as long as this waits.
    pub async fn dial(&self, address: &str) -> Result<Stream, NodeError> {
        if self.ips().is_empty() {
            self.up().await?;
        }
        let to = self.resolve(address).await?;
        if self.ask(|answer| Request::Routes(to.ip(), answer)).await? {
            let stream = self.stack.connect_tcp(None, to).await;
            return stream.map(Stream::Tailnet).map_err(|error| NodeError::Connect(to, error));
        }
        if is_of_tailnet(to.ip()) {
            return Err(NodeError::NoPeer(to.ip()));
        }
        let stream = tokio::net::TcpStream::connect(to).await;
        stream.map(Stream::Machine).map_err(|error| NodeError::Connect(to, error))
    }

    /// Asks a peer for an answer, and tells how long that took and which way it came.
    ///
    /// # Errors
    /// [`NodeError::NoAnswer`] after 5 s, [`NodeError::NoPeer`] if nobody has the address.
    pub async fn ping(&self, address: IpAddr, kind: PingKind) -> Result<Pong, NodeError> {
        let pinger = Pinger { stack: self.stack.clone(), requests: self.requests.clone() };
        pinger.ping(address, kind).await
    }

    /// How far the node has come with the control server.
    pub fn state(&self) -> State {
        State::from(&*self.watched.phase.borrow())
    }

    /// What the network around the node is like, as far as it is known.
    pub async fn netcheck(&self) -> Result<NetcheckReport, NodeError> {
        self.ask(Request::Netcheck).await
    }

    /// Tells from now on what happens to the node and its peers. Beginning with the state; what there is already, tells
    /// [`Self::status`].
    pub fn watch(&self) -> Watch {
        Watch::new(self.watched.phase.clone(), self.watched.events.subscribe())
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
    pub async fn close(&self) {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        for task in tasks.into_iter().flatten() {
            task.abort();
            // Whether it was cancelled or had ended does not matter.
            task.await.ok();
        }
    }

    /// The address behind `host:port`; the host is a name in the tailnet, or else one that the machine knows, or an address.
    pub async fn resolve(&self, address: &str) -> Result<SocketAddr, NodeError> {
        if let Ok(address) = address.parse() {
            return Ok(address);
        }
        let parts =
            address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port): (&str, u16) =
            parts.ok_or_else(|| NodeError::Address(address.to_owned()))?;
        let found = self.ask(|answer| Request::Resolve(host.to_owned(), answer)).await?;
        if let Some(first) = found.first() {
            return Ok(SocketAddr::new(*first, port));
        }
        let found = lookup_host((host, port)).await.ok().and_then(|mut found| found.next());
        found.ok_or_else(|| NodeError::UnknownName(host.to_owned()))
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, NodeError> {
        let (sender, answer) = oneshot::channel();
        self.requests.send(request(sender)).await.map_err(|_| NodeError::Closed)?;
        answer.await.map_err(|_| NodeError::Closed)
    }

    async fn order(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<(), NodeError>>) -> Command,
    ) -> Result<(), NodeError> {
        let (sender, answer) = oneshot::channel();
        self.commands.send(command(sender)).await.map_err(|_| NodeError::Closed)?;
        answer.await.map_err(|_| NodeError::Closed)?
    }
}
