//! Listeners: who gets which connection, and how programs take theirs.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::connection::Phase;
use crate::connections::ConnectionId;
use crate::stack::Shared;
use crate::stream::TcpStream;

/// The address families that a listener takes. The names are tsnet's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// Both.
    Tcp,
    /// IPv4 only.
    Tcp4,
    /// IPv6 only.
    Tcp6,
}

/// Why nobody can listen there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// Somebody listens at the very same place.
    #[error("address is in use")]
    InUse,
    /// The address is not of the network's family.
    #[error("address is not of the network's family")]
    WrongFamily,
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

/// What decides about a connection that no listener wants, given source and destination.
pub(crate) type Decide = Box<dyn Fn(SocketAddr, SocketAddr) -> bool + Send>;

/// The place of a listener; there is one for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ListenKey {
    /// `ip` is `None` for all own addresses.
    Address { network: Network, ip: Option<IpAddr>, port: u16 },
    /// What no other listener wants.
    Fallback,
}

/// The table of listeners.
#[derive(Default)]
pub(crate) struct Listeners {
    by_key: HashMap<ListenKey, Queue>,
    fallback: Option<Decide>,
}

/// What waits at one listener.
#[derive(Debug, Default)]
struct Queue {
    /// Connections to be accepted, oldest first.
    waiting: VecDeque<ConnectionId>,
    /// The length of `waiting` and the handshakes under way.
    backlog: usize,
    program: Option<Waker>,
}

impl Listeners {
    pub(crate) fn contains(&self, key: ListenKey) -> bool {
        self.by_key.contains_key(&key)
    }

    pub(crate) fn insert(&mut self, key: ListenKey) {
        self.by_key.insert(key, Queue::default());
    }

    pub(crate) fn remove(&mut self, key: ListenKey) {
        self.by_key.remove(&key);
        if key == ListenKey::Fallback {
            self.fallback = None;
        }
    }

    /// Lets `decide` speak for connections that no other listener wants.
    pub(crate) fn insert_fallback(&mut self, decide: Decide) {
        self.fallback = Some(decide);
        self.insert(ListenKey::Fallback);
    }

    /// The listener for a connection to `local`, the most specific one first, as in tsnet.
    pub(crate) fn find(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        is_own: bool,
    ) -> Option<ListenKey> {
        let family = if local.is_ipv4() { Network::Tcp4 } else { Network::Tcp6 };
        let places = [Some(local.ip()), None].into_iter().take(1 + usize::from(is_own));
        places
            .flat_map(|ip| [(family, ip), (Network::Tcp, ip)])
            .map(|(network, ip)| ListenKey::Address { network, ip, port: local.port() })
            .find(|key| self.contains(*key))
            .or_else(|| {
                let is_wanted = self.fallback.as_ref().is_some_and(|decide| decide(remote, local));
                is_wanted.then_some(ListenKey::Fallback)
            })
    }

    /// How many connections a listener has that are not accepted.
    pub(crate) fn backlog(&self, key: ListenKey) -> usize {
        self.by_key.get(&key).map_or(0, |queue| queue.backlog)
    }

    /// Follows a connection from phase to phase.
    pub(crate) fn note_change(&mut self, id: ConnectionId, before: Phase, after: Phase) {
        if let Some(queue) = queue_of(before).and_then(|key| self.by_key.get_mut(&key)) {
            queue.backlog -= 1;
            queue.waiting.retain(|waiting| *waiting != id);
        }
        if let Some(queue) = queue_of(after).and_then(|key| self.by_key.get_mut(&key)) {
            queue.backlog += 1;
            if matches!(after, Phase::Waiting(_)) {
                queue.waiting.push_back(id);
                queue.program.take().into_iter().for_each(Waker::wake);
            }
        }
    }

    /// The connection that waits longest; with none, `program` is woken once one comes.
    pub(crate) fn next_waiting(&mut self, key: ListenKey, program: &Waker) -> Option<ConnectionId> {
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

fn queue_of(phase: Phase) -> Option<ListenKey> {
    match phase {
        Phase::Arriving(key) | Phase::Waiting(key) => Some(key),
        Phase::Held | Phase::Orphaned => None,
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Listeners").field("by_key", &self.by_key).finish_non_exhaustive()
    }
}

/// Takes connections from peers; made by [`Stack::listen_tcp`](crate::Stack::listen_tcp) and
/// [`Stack::listen_fallback`](crate::Stack::listen_fallback).
///
/// A connection that nobody accepts within a second is reset. At most 128 wait, handshakes included; the SYNs
/// of more are ignored. Dropping the listener ends it and resets what waits.
#[derive(Debug)]
pub struct TcpListener {
    shared: Arc<Shared>,
    key: ListenKey,
}

impl TcpListener {
    pub(crate) fn new(shared: Arc<Shared>, key: ListenKey) -> Self {
        Self { shared, key }
    }

    /// The port; 0 for the fallback.
    pub fn port(&self) -> u16 {
        match self.key {
            ListenKey::Address { port, .. } => port,
            ListenKey::Fallback => 0,
        }
    }

    /// Waits for a connection and says who opened it. Safe to cancel.
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
