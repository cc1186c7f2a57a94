//! The handle of a node.

mod error;
mod told;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mesh_stack::{Network, Stack, TcpListener, UdpListener, UdpSocket};
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
use crate::port_mapping::PortMapping;
use crate::stream::Stream;
use crate::watch::{State, Watch, WatchEvent};

pub use error::{ListenError, NodeError};
pub use told::{PeerStatus, Status, WhoIs};

/// How long a node that has joined waits for its relay before it counts as up without, in [`Node::up`], which shows it.
pub const RELAY_WAIT: Duration = Duration::from_secs(3);

/// A node of a tailnet. It leaves when this is dropped.
///
/// [Example](crate)
#[derive(Debug)]
pub struct Node {
    stack: Stack,
    requests: mpsc::Sender<Request>,
    commands: mpsc::Sender<Command>,
    watched: Watched,
    /// Whether packets of the machine go through it as well.
    #[cfg_attr(not(feature = "loopback"), expect(dead_code, reason = "the local API tells it"))]
    pub(crate) has_device: bool,
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

/// The node's tasks, which end with the handle.
pub(crate) type Tasks = Vec<AbortOnDropHandle<()>>;

pub(crate) fn spawn_tasks(
    engine: Engine,
    control: Control,
    port_mapping: Option<PortMapping>,
) -> Tasks {
    let mut tasks = vec![tokio::spawn(engine.run()), tokio::spawn(control.run())];
    tasks.extend(port_mapping.map(|port_mapping| tokio::spawn(port_mapping.run())));
    tasks.into_iter().map(AbortOnDropHandle::new).collect()
}

impl Node {
    /// What a node is to be told first.
    ///
    /// ```
    /// use mesh_node::Node;
    ///
    /// let builder = Node::builder().control_url("https://control.example.com").hostname("web");
    /// # drop(builder);
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(
        stack: Stack,
        requests: mpsc::Sender<Request>,
        commands: mpsc::Sender<Command>,
        watched: Watched,
        has_device: bool,
        tasks: Tasks,
    ) -> Self {
        Self { stack, requests, commands, watched, has_device, tasks: Mutex::new(Some(tasks)) }
    }

    /// Waits until the node has joined, knows its addresses and can be reached: through a relay, or if that takes longer than
    /// [`RELAY_WAIT`], as far as there are direct ways. What it returns names all peers, as [`Self::status`] does.
    ///
    /// ```
    /// # use mesh_node::Node;
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").hostname("web").ephemeral(true);
    /// # let node = node.build().await?;
    /// use std::time::Duration;
    ///
    /// use mesh_node::RELAY_WAIT;
    /// use tokio::time::timeout;
    ///
    /// let status = timeout(RELAY_WAIT + Duration::from_secs(30), node.up()).await??;
    /// assert_eq!(status.node.ok_or("not told yet")?.name, "web.example.ts.net.");
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [`NodeError::Refused`] as soon as the control server says no, [`NodeError::LoggedOut`] after [`Self::logout`]. Waits for a
    /// login that is needed; see [`Self::needs_login`].
    pub async fn up(&self) -> Result<Status, NodeError> {
        self.wait_until_up().await?;
        self.status().await
    }

    async fn wait_until_up(&self) -> Result<(), NodeError> {
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
        Ok(())
    }

    /// Waits until the control server wants somebody to log in, and returns the URL for that.
    ///
    /// ```
    /// # use mesh_node::Node;
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).ephemeral(true).build().await?;
    /// tokio::select! {
    ///     url = node.needs_login() => println!("log in at {}", url?),
    ///     status = node.up() => println!("nobody has to: {:?}", status?.node),
    /// }
    /// # tailnet.log_in();
    /// node.up().await?;
    /// # Ok(()) });
    /// ```
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
    /// ```
    /// # use mesh_node::{Node, NodeError};
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
    /// node.up().await?;
    /// node.logout().await?;
    /// assert_eq!(node.status().await?.node, None);
    /// assert!(matches!(node.up().await, Err(NodeError::LoggedOut)));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [`NodeError::NotTold`] if the control server cannot be told, or does not like it. The node has left all the same.
    pub async fn logout(&self) -> Result<(), NodeError> {
        self.order(Command::Logout).await
    }

    /// Logs in anew, with a new node key in place of the one in use, which stays in use until then. Returns when the control server
    /// has taken the key: that may need somebody to log in, see [`Self::needs_login`]. Who stops waiting does not stop the login.
    ///
    /// ```
    /// # use mesh_node::Node;
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
    /// # node.logout().await?;
    /// node.reauthenticate().await?;
    /// node.up().await?;
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [`NodeError::Refused`] if the control server says no. The key in use is then as good as before.
    pub async fn reauthenticate(&self) -> Result<(), NodeError> {
        self.order(Command::Reauthenticate).await
    }

    /// The node's own addresses; none before it has joined.
    ///
    /// ```
    /// # use mesh_node::Node;
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
    /// node.up().await?;
    /// let mut addresses = node.ips().into_iter();
    /// assert_eq!(addresses.find(|ip| ip.is_ipv4()), Some([100, 64, 0, 1].into()));
    /// # Ok(()) });
    /// ```
    pub fn ips(&self) -> Vec<IpAddr> {
        self.watched.addresses.borrow().clone()
    }

    /// Listens on a TCP port of all own addresses; 0 takes a free one from 10002 to 19999.
    ///
    /// ```
    /// # use mesh_node::Node;
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").hostname("web").ephemeral(true);
    /// # let node = node.build().await?;
    /// use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    ///
    /// let mut listener = node.listen(80)?;
    /// let (accepted, dialled) = tokio::join!(listener.accept(), node.dial("web:80"));
    /// let ((mut stream, caller), mut call) = (accepted?, dialled?);
    /// stream.write_all(b"hello").await?;
    /// drop(stream);
    ///
    /// let mut heard = String::new();
    /// call.read_to_string(&mut heard).await?;
    /// assert_eq!((heard.as_str(), caller), ("hello", call.local_addr()?));
    /// # Ok(()) });
    /// ```
    pub fn listen(&self, port: u16) -> Result<TcpListener, ListenError> {
        self.stack.listen_tcp(Network::Tcp, None, port)
    }

    /// Listens for one family, or at one address, which may be one that the node routes for others.
    ///
    /// ```
    /// # use mesh_node::{ListenError, Network, Node};
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
    /// let both = node.listen(80)?;
    /// let v4 = node.listen_on(Network::Tcp4, None, 80)?;
    /// let routed = node.listen_on(Network::Tcp, Some([192, 0, 2, 1].into()), 0)?;
    /// assert!(matches!(node.listen(80), Err(ListenError::InUse)));
    /// assert!((10_002..20_000).contains(&routed.port()));
    /// # drop((both, v4));
    /// # Ok(()) });
    /// ```
    pub fn listen_on(
        &self,
        network: Network,
        ip: Option<IpAddr>,
        port: u16,
    ) -> Result<TcpListener, ListenError> {
        self.stack.listen_tcp(network, ip, port)
    }

    /// Listens for UDP, as one stream of datagrams for each source; else as [`Self::listen_on`].
    ///
    /// ```
    /// # use mesh_node::{Network, Node};
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
    /// # node.up().await?;
    /// let mut listener = node.listen_udp(Network::Udp, None, 53)?;
    /// let client = node.listen_packet("100.64.0.1:0".parse()?)?;
    /// client.send_to(b"who?", "100.64.0.1:53".parse()?).await?;
    ///
    /// let (stream, from) = listener.accept().await?;
    /// let mut question = [0; 512];
    /// let length = stream.recv(&mut question).await?;
    /// assert_eq!((&question[..length], from), (&b"who?"[..], client.local_addr()));
    /// stream.send(b"you").await?;
    /// # Ok(()) });
    /// ```
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
    ///
    /// ```
    /// # use mesh_node::Node;
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").hostname("web").ephemeral(true);
    /// # let node = node.build().await?;
    /// # node.up().await?;
    /// let mut others = node.register_fallback(|_source, destination| destination.port() >= 8000)?;
    /// let (accepted, dialled) = tokio::join!(others.accept(), node.dial("web:8080"));
    /// let ((stream, _caller), _call) = (accepted?, dialled?);
    /// assert_eq!(stream.local_addr().port(), 8080);
    /// assert!(node.dial("web:80").await.is_err());
    /// # Ok(()) });
    /// ```
    pub fn register_fallback(
        &self,
        decide: impl Fn(SocketAddr, SocketAddr) -> bool + Send + 'static,
    ) -> Result<TcpListener, ListenError> {
        self.stack.register_fallback(decide)
    }

    /// Takes datagrams to one of the own addresses; port 0 takes a free one.
    ///
    /// ```
    /// # use mesh_node::Node;
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
    /// # node.up().await?;
    /// let socket = node.listen_packet("100.64.0.1:5353".parse()?)?;
    /// socket.send_to(b"echo", socket.local_addr()).await?;
    ///
    /// let mut datagram = [0; 1280];
    /// let (length, from) = socket.recv_from(&mut datagram).await?;
    /// assert_eq!((&datagram[..length], from), (&b"echo"[..], socket.local_addr()));
    /// # Ok(()) });
    /// ```
    pub fn listen_packet(&self, local: SocketAddr) -> Result<UdpSocket, ListenError> {
        self.stack.bind_udp(local)
    }

    /// Connects to `host:port`; the host is a name or an address. What is in the tailnet is reached through it, all else over
    /// the machine's own network. How long that may take is the caller's to say: a peer that does not answer is called for
    /// as long as this waits.
    ///
    /// ```
    /// # use mesh_node::{Node, NodeError};
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").hostname("web").ephemeral(true);
    /// # let node = node.build().await?;
    /// use std::time::Duration;
    ///
    /// use tokio::time::timeout;
    ///
    /// let refused = timeout(Duration::from_secs(10), node.dial("web:80")).await?;
    /// assert!(matches!(refused, Err(NodeError::Connect(..))), "nobody listens there");
    /// let nobody = node.dial("100.64.0.99:80").await;
    /// assert!(matches!(nobody, Err(NodeError::NoPeer(_))));
    /// # Ok(()) });
    /// ```
    pub async fn dial(&self, address: &str) -> Result<Stream, NodeError> {
        if self.ips().is_empty() {
            self.wait_until_up().await?;
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
    /// ```
    /// # use mesh_node::{Node, PingKind};
    /// # mesh_testkit::example(async |tailnet| {
    /// # let web = Node::builder().control_url(tailnet.url()).auth_key("any").hostname("web").ephemeral(true);
    /// # let web = web.build().await?;
    /// # web.up().await?;
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
    /// # node.up().await?;
    /// let web = node.resolve("web:0").await?.ip();
    /// let pong = node.ping(web, PingKind::Tsmp).await?;
    /// println!("{web} answers in {:?}, directly from {:?}", pong.latency, pong.direct);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [`NodeError::NoAnswer`] after 5 s, [`NodeError::NoPeer`] if nobody has the address.
    pub async fn ping(&self, address: IpAddr, kind: PingKind) -> Result<Pong, NodeError> {
        let pinger = Pinger { stack: self.stack.clone(), requests: self.requests.clone() };
        pinger.ping(address, kind).await
    }

    /// How far the node has come with the control server.
    ///
    /// ```
    /// # use mesh_node::{Node, State};
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
    /// node.up().await?;
    /// assert_eq!(node.state(), State::Running);
    /// # Ok(()) });
    /// ```
    pub fn state(&self) -> State {
        State::from(&*self.watched.phase.borrow())
    }

    /// What the network around the node is like, as far as it is known.
    ///
    /// ```
    /// # use mesh_node::Node;
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
    /// node.up().await?;
    /// let report = node.netcheck().await?;
    /// let home = report.home.ok_or("no relay answers")?;
    /// println!("relay {home}, seen as {:?}", report.seen_as);
    /// # Ok(()) });
    /// ```
    pub async fn netcheck(&self) -> Result<NetcheckReport, NodeError> {
        self.ask(Request::Netcheck).await
    }

    /// Tells from now on what happens to the node and its peers. Beginning with the state; what there is already, tells
    /// [`Self::status`].
    ///
    /// ```
    /// # use mesh_node::{Node, State, WatchEvent};
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
    /// let mut watch = node.watch();
    /// while watch.next().await? != WatchEvent::State(State::Running) {}
    /// # Ok(()) });
    /// ```
    pub fn watch(&self) -> Watch {
        Watch::new(self.watched.phase.clone(), self.watched.events.subscribe())
    }

    /// Who has an address, or routes it; `None` if nobody does.
    ///
    /// ```
    /// # use mesh_node::Node;
    /// # mesh_testkit::example(async |tailnet| {
    /// # let web = Node::builder().control_url(tailnet.url()).auth_key("any").hostname("web").ephemeral(true);
    /// # let web = web.build().await?;
    /// # web.up().await?;
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
    /// # node.up().await?;
    /// let web = node.resolve("web:0").await?.ip();
    /// let who = node.who_is(web).await?.ok_or("nobody has the address")?;
    /// assert_eq!(who.node.name, "web.example.ts.net.");
    /// assert_eq!(who.user_profile.ok_or("no owner")?.login_name, "alice@example.com");
    /// # Ok(()) });
    /// ```
    pub async fn who_is(&self, address: IpAddr) -> Result<Option<WhoIs>, NodeError> {
        self.ask(|answer| Request::WhoIs(address, answer)).await
    }

    /// What there is to tell.
    ///
    /// ```
    /// # use mesh_node::Node;
    /// # mesh_testkit::example(async |tailnet| {
    /// # let web = Node::builder().control_url(tailnet.url()).auth_key("any").hostname("web").ephemeral(true);
    /// # let web = web.build().await?;
    /// # web.up().await?;
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
    /// node.up().await?;
    /// let status = node.status().await?;
    /// for peer in &status.peers {
    ///     println!("{} since {:?}", peer.node.name, peer.last_handshake);
    /// }
    /// assert_eq!(status.peers.len(), 1);
    /// # Ok(()) });
    /// ```
    pub async fn status(&self) -> Result<Status, NodeError> {
        self.ask(Request::Status).await
    }

    /// Ends the node, and returns when nothing of it runs any more: its state may then be used by another.
    ///
    /// ```
    /// # use mesh_node::{Node, NodeError};
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").ephemeral(true).build().await?;
    /// node.close().await;
    /// assert!(matches!(node.status().await, Err(NodeError::Closed)));
    /// # Ok(()) });
    /// ```
    pub async fn close(&self) {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        for task in tasks.into_iter().flatten() {
            task.abort();
            // Whether it was cancelled or had ended does not matter.
            task.await.ok();
        }
    }

    /// The address behind `host:port`; the host is a name in the tailnet, or else one that the machine knows, or an address.
    ///
    /// ```
    /// # use mesh_node::Node;
    /// # mesh_testkit::example(async |tailnet| {
    /// # let node = Node::builder().control_url(tailnet.url()).auth_key("any").hostname("web").ephemeral(true);
    /// # let node = node.build().await?;
    /// node.up().await?;
    /// assert_eq!(node.resolve("web:80").await?, "100.64.0.1:80".parse()?);
    /// assert_eq!(node.resolve("192.0.2.1:80").await?, "192.0.2.1:80".parse()?);
    /// # Ok(()) });
    /// ```
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
