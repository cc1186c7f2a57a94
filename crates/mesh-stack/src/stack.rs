//! The handle of a stack, and the lock and the clock around what is inside.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smoltcp::time::Instant;
use smoltcp::wire::IpAddress;

use crate::config::Config;
use crate::inner::Inner;
use crate::listen::{BindError, ListenKey, Network, TcpListener};
use crate::outgoing::Outgoing;
use crate::stream::TcpStream;
use crate::udp::UdpSocket;

/// What the time is when a stack begins: smoltcp takes zero for "at once".
const EPOCH: Instant = Instant::from_millis_const(1000);

/// A stack behind its lock. The lock is held for a few lines and across no wait.
pub(crate) struct Shared {
    inner: Mutex<Inner>,
    born_at: tokio::time::Instant,
}

impl Shared {
    /// Locks the stack and tells it the time.
    pub(crate) fn lock(&self) -> (MutexGuard<'_, Inner>, Instant) {
        let now = EPOCH + self.born_at.elapsed().into();
        (self.inner.lock().unwrap_or_else(PoisonError::into_inner), now)
    }

    /// When it is `at` for tokio.
    pub(crate) fn to_tokio(&self, at: Instant) -> tokio::time::Instant {
        self.born_at + Duration::from(at - EPOCH)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").field("born_at", &self.born_at).finish_non_exhaustive()
    }
}

/// A TCP/IP stack: the way in for packets, and the place where programs get their sockets.
///
/// Clones are handles of the same stack.
#[derive(Debug, Clone)]
pub struct Stack {
    shared: Arc<Shared>,
}

impl Stack {
    /// Makes a stack and the way out of it.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub fn new(config: &Config) -> io::Result<(Self, Outgoing)> {
        let seed = getrandom::u64().map_err(io::Error::other)?;
        let inner = Mutex::new(Inner::new(config, seed, EPOCH));
        let shared = Arc::new(Shared { inner, born_at: tokio::time::Instant::now() });
        let outgoing = Outgoing::new(Arc::clone(&shared));
        Ok((Self { shared }, outgoing))
    }

    /// Replaces the addresses of the own node. Connections that exist stay as they are.
    pub fn set_addresses(&self, addresses: &[IpAddr]) {
        self.shared.lock().0.addresses = addresses.to_vec();
    }

    /// Takes IP packets that have come for this node, or for a network that it routes.
    ///
    /// Give as many as there are at once: acknowledgements are sent per batch. What is malformed or unwanted
    /// is dropped or answered, as on any host. An IP fragment is dropped.
    pub fn receive<P: AsRef<[u8]>>(&self, packets: impl IntoIterator<Item = P>) {
        let (mut inner, now) = self.shared.lock();
        for packet in packets {
            inner.handle_packet(packet.as_ref(), now);
        }
        inner.settle_touched(now);
    }

    /// Listens for connections to `ip`, which may be one of a routed network; `None` and the unspecified
    /// addresses mean all own addresses. Port 0 takes a free one from 10002 to 19999.
    ///
    /// A connection goes to the most specific listener: one for its address comes before one for all, and one
    /// for its family before one for both. Without any it is reset, unless
    /// [the fallback](Self::listen_fallback) wants it.
    ///
    /// # Errors
    /// When there is such a listener, or `ip` is not of `network`.
    ///
    /// Source: tailscale `tsnet/tsnet.go`, `Server.Listen` and `listenerForDstAddr`.
    pub fn listen_tcp(
        &self,
        network: Network,
        ip: Option<IpAddr>,
        port: u16,
    ) -> Result<TcpListener, BindError> {
        let is_of_family = ip.is_none_or(|ip| match network {
            Network::Tcp => true,
            Network::Tcp4 => ip.is_ipv4(),
            Network::Tcp6 => ip.is_ipv6(),
        });
        if !is_of_family {
            return Err(BindError::WrongFamily);
        }
        let (mut inner, _) = self.shared.lock();
        inner.check_open().map_err(|_| BindError::Closed)?;
        let key = inner.listen(network, ip.filter(|ip| !ip.is_unspecified()), port)?;
        Ok(TcpListener::new(Arc::clone(&self.shared), key))
    }

    /// Listens for connections to anywhere that no other listener wants, if `decide` says so when it is given
    /// source and destination. There is one fallback at a time; drop it before the next one.
    ///
    /// `decide` is called while the stack is locked: it must be quick, and must not use the stack.
    ///
    /// # Errors
    /// When there is a fallback already.
    pub fn listen_fallback(
        &self,
        decide: impl Fn(SocketAddr, SocketAddr) -> bool + Send + 'static,
    ) -> Result<TcpListener, BindError> {
        let (mut inner, _) = self.shared.lock();
        inner.check_open().map_err(|_| BindError::Closed)?;
        if inner.listeners.contains(ListenKey::Fallback) {
            return Err(BindError::InUse);
        }
        inner.listeners.insert_fallback(Box::new(decide));
        Ok(TcpListener::new(Arc::clone(&self.shared), ListenKey::Fallback))
    }

    /// Connects to `destination` from `source`, or else from the first own address of its family. How long
    /// that may take is up to the caller: dropping the future gives it up.
    ///
    /// # Errors
    /// [`ConnectionRefused`](io::ErrorKind::ConnectionRefused) when the peer says so,
    /// [`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable) without an address of the family,
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) when `destination` is no host or has no port,
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) when all ports to it are taken,
    /// [`QuotaExceeded`](io::ErrorKind::QuotaExceeded) with 4096 connections, and
    /// [`NetworkDown`](io::ErrorKind::NetworkDown) once [`Outgoing`] is gone.
    pub async fn connect_tcp(
        &self,
        source: Option<IpAddr>,
        destination: SocketAddr,
    ) -> io::Result<TcpStream> {
        if !is_host(destination.ip()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let stream = {
            let (mut inner, now) = self.shared.lock();
            let (id, local) = inner.connect(source, destination, now)?;
            TcpStream::new(Arc::clone(&self.shared), id, local, destination)
        };
        poll_fn(|cx| stream.poll_connected(cx)).await?;
        Ok(stream)
    }

    /// Takes datagrams to `local`, whose address must be that of one host; port 0 takes a free one from 10002
    /// to 19999.
    ///
    /// # Errors
    /// When there is such a socket, or the address is unspecified, multicast or broadcast.
    pub fn bind_udp(&self, local: SocketAddr) -> Result<UdpSocket, BindError> {
        if !is_host(local.ip()) {
            return Err(BindError::NotAHost);
        }
        let (mut inner, _) = self.shared.lock();
        inner.check_open().map_err(|_| BindError::Closed)?;
        let local = inner.bind_udp(local)?;
        Ok(UdpSocket::new(Arc::clone(&self.shared), local))
    }

    /// The number of TCP connections, those included that nobody holds and that still deliver.
    pub fn connection_count(&self) -> usize {
        self.shared.lock().0.connection_count()
    }
}

/// Whether `address` is that of one host.
pub(crate) fn is_host(address: IpAddr) -> bool {
    IpAddress::from(address).is_unicast()
}
