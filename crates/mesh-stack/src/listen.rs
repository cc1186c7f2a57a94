//! Listeners: who gets which connection, and how programs take theirs.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use smoltcp::time::Duration;

use crate::stack::Shared;
use crate::stream::TcpStream;

/// What nobody accepts for so long is given up, as tsnet does.
pub(crate) const ACCEPT_TIMEOUT: Duration = Duration::from_secs(1);

/// Most connections or flows of one listener that wait to be accepted, handshakes included; with more, what would
/// open another one is ignored.
pub(crate) const BACKLOG_MAX: usize = 128;

/// What a listener takes: a protocol, and the address families of it. The names are tsnet's.
///
/// ```
/// # use mesh_stack::{Config, PacketBatch, Stack};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (stack, mut outgoing) = Stack::new(&Config::default())?;
/// # stack.set_addresses(&[[100, 64, 0, 1].into()]);
/// # let back = stack.clone();
/// # tokio::spawn(async move {
/// #     let mut batch = PacketBatch::new();
/// #     loop {
/// #         outgoing.next_batch(&mut batch).await;
/// #         back.receive(batch.packets());
/// #     }
/// # });
/// use mesh_stack::Network;
///
/// // One port, a listener for each family.
/// let v4 = stack.listen_tcp(Network::Tcp4, None, 80)?;
/// let v6 = stack.listen_tcp(Network::Tcp6, None, 80)?;
/// # drop((v4, v6));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// TCP of both families.
    Tcp,
    /// TCP over IPv4 only.
    Tcp4,
    /// TCP over IPv6 only.
    Tcp6,
    /// UDP of both families.
    Udp,
    /// UDP over IPv4 only.
    Udp4,
    /// UDP over IPv6 only.
    Udp6,
}

impl Network {
    pub(crate) fn is_udp(self) -> bool {
        match self {
            Self::Tcp | Self::Tcp4 | Self::Tcp6 => false,
            Self::Udp | Self::Udp4 | Self::Udp6 => true,
        }
    }

    /// Whether `ip` is of its families.
    pub(crate) fn has(self, ip: IpAddr) -> bool {
        match self {
            Self::Tcp | Self::Udp => true,
            Self::Tcp4 | Self::Udp4 => ip.is_ipv4(),
            Self::Tcp6 | Self::Udp6 => ip.is_ipv6(),
        }
    }
}

/// Why nobody can listen there.
///
/// ```
/// # use mesh_stack::{Config, PacketBatch, Stack};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (stack, mut outgoing) = Stack::new(&Config::default())?;
/// # stack.set_addresses(&[[100, 64, 0, 1].into()]);
/// # let back = stack.clone();
/// # tokio::spawn(async move {
/// #     let mut batch = PacketBatch::new();
/// #     loop {
/// #         outgoing.next_batch(&mut batch).await;
/// #         back.receive(batch.packets());
/// #     }
/// # });
/// use mesh_stack::{BindError, Network};
///
/// let first = stack.listen_tcp(Network::Tcp, None, 80)?;
/// assert_eq!(stack.listen_tcp(Network::Tcp, None, 80).err(), Some(BindError::InUse));
/// assert_eq!(stack.listen_tcp(Network::Udp, None, 53).err(), Some(BindError::WrongProtocol));
/// # drop(first);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// Somebody listens at the very same place.
    #[error("address is in use")]
    InUse,
    /// The address is not of the network's family.
    #[error("address is not of the network's family")]
    WrongFamily,
    /// UDP where TCP is listened for, or the other way round.
    #[error("network is of another protocol")]
    WrongProtocol,
    /// There are as many fallbacks as there may be.
    #[error("too many fallbacks")]
    TooManyFallbacks,
    /// A UDP socket needs one address, that of a host.
    #[error("address is not that of a host")]
    NotAHost,
    /// All ports that are given out are taken.
    #[error("no port is free")]
    NoFreePort,
    /// [`Outgoing`](crate::Outgoing) is gone, so nothing can be sent any more.
    #[error("stack is closed")]
    Closed,
}

/// The place of a listener; there is one for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ListenKey {
    /// `ip` is `None` for all own addresses.
    Address { network: Network, ip: Option<IpAddr>, port: u16 },
    /// What no listener at an address wants, by the number of the fallback.
    Fallback(u64),
}

impl ListenKey {
    /// The port; 0 for a fallback.
    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Address { port, .. } => port,
            Self::Fallback(_) => 0,
        }
    }
}

/// A table of listeners; `T` is what waits to be accepted.
#[derive(Debug)]
pub(crate) struct Listeners<T> {
    by_key: HashMap<ListenKey, Queue<T>>,
}

/// What waits at one listener.
#[derive(Debug)]
struct Queue<T> {
    /// What is to be accepted, oldest first.
    waiting: VecDeque<T>,
    /// The length of `waiting` and the handshakes under way.
    backlog: usize,
    program: Option<Waker>,
}

impl<T> Default for Listeners<T> {
    fn default() -> Self {
        Self { by_key: HashMap::new() }
    }
}

impl<T: Copy + PartialEq> Listeners<T> {
    pub(crate) fn contains(&self, key: ListenKey) -> bool {
        self.by_key.contains_key(&key)
    }

    pub(crate) fn insert(&mut self, key: ListenKey) {
        self.by_key.insert(key, Queue { waiting: VecDeque::new(), backlog: 0, program: None });
    }

    pub(crate) fn remove(&mut self, key: ListenKey) {
        self.by_key.remove(&key);
    }

    /// The listener for what comes to `local`, the most specific one first, as in tsnet. `networks` are that of
    /// its family and that of both.
    pub(crate) fn find(
        &self,
        networks: [Network; 2],
        local: SocketAddr,
        is_own: bool,
    ) -> Option<ListenKey> {
        let places = [Some(local.ip()), None].into_iter().take(1 + usize::from(is_own));
        places
            .flat_map(|ip| networks.map(|network| (network, ip)))
            .map(|(network, ip)| ListenKey::Address { network, ip, port: local.port() })
            .find(|key| self.contains(*key))
    }

    /// How much a listener has that is not accepted.
    pub(crate) fn backlog(&self, key: ListenKey) -> usize {
        self.by_key.get(&key).map_or(0, |queue| queue.backlog)
    }

    /// Counts something that will wait.
    pub(crate) fn announce(&mut self, key: ListenKey) {
        if let Some(queue) = self.by_key.get_mut(&key) {
            queue.backlog += 1;
        }
    }

    /// Lets what was announced wait.
    pub(crate) fn push(&mut self, key: ListenKey, item: T) {
        if let Some(queue) = self.by_key.get_mut(&key) {
            queue.waiting.push_back(item);
            queue.program.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Forgets what was announced, whether it waits or not.
    pub(crate) fn withdraw(&mut self, key: ListenKey, item: T) {
        if let Some(queue) = self.by_key.get_mut(&key) {
            queue.backlog -= 1;
            queue.waiting.retain(|waiting| *waiting != item);
        }
    }

    /// What waits longest; with nothing, `program` is woken once there is something.
    pub(crate) fn next_waiting(&mut self, key: ListenKey, program: &Waker) -> Option<T> {
        let queue = self.by_key.get_mut(&key)?;
        if queue.waiting.is_empty() {
            queue.program = Some(program.clone());
        }
        queue.waiting.front().copied()
    }

    pub(crate) fn wake_all(&mut self) {
        self.by_key.values_mut().filter_map(|queue| queue.program.take()).for_each(Waker::wake);
    }
}

/// Takes connections from peers; made by [`Stack::listen_tcp`](crate::Stack::listen_tcp) and
/// [`Stack::register_fallback`](crate::Stack::register_fallback).
///
/// A connection that nobody accepts within a second is reset. At most 128 wait, handshakes included; the SYNs
/// of more are ignored. Dropping the listener ends it and resets what waits.
///
/// ```
/// # use mesh_stack::{Config, PacketBatch, Stack};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let (stack, mut outgoing) = Stack::new(&Config::default())?;
/// # stack.set_addresses(&[[100, 64, 0, 1].into()]);
/// # let back = stack.clone();
/// # tokio::spawn(async move {
/// #     let mut batch = PacketBatch::new();
/// #     loop {
/// #         outgoing.next_batch(&mut batch).await;
/// #         back.receive(batch.packets());
/// #     }
/// # });
/// use mesh_stack::Network;
///
/// let mut listener = stack.listen_tcp(Network::Tcp, None, 0)?;
/// let destination = ([100, 64, 0, 1], listener.port()).into();
/// let (accepted, called) = tokio::join!(listener.accept(), stack.connect_tcp(None, destination));
/// let (_stream, from) = accepted?;
/// assert_eq!(from, called?.local_addr());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TcpListener {
    shared: Arc<Shared>,
    key: ListenKey,
}

impl TcpListener {
    pub(crate) fn new(shared: Arc<Shared>, key: ListenKey) -> Self {
        Self { shared, key }
    }

    /// The port; 0 for a fallback.
    ///
    /// [Example](Self)
    pub fn port(&self) -> u16 {
        self.key.port()
    }

    /// Waits for a connection and says who opened it. Safe to cancel.
    ///
    /// [Example](Self)
    ///
    /// # Errors
    /// [`NetworkDown`](io::ErrorKind::NetworkDown) once [`Outgoing`](crate::Outgoing) is gone.
    pub async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Takes a connection, or wakes the task when there is one; see [`accept`](Self::accept).
    pub fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let (mut inner, _) = self.shared.lock();
        inner.poll_accept(self.key, cx.waker()).map_ok(|(id, flow)| {
            let stream = TcpStream::new(Arc::clone(&self.shared), id, flow.local, flow.remote);
            (stream, flow.remote)
        })
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        let (mut inner, now) = self.shared.lock();
        inner.close_listener(self.key, now);
    }
}
