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
use crate::inner::{Fate, Inner};
use crate::listen::{BindError, Network, TcpListener};
use crate::outgoing::Outgoing;
use crate::ping::PingGuard;
use crate::stream::TcpStream;
use crate::udp::{UdpListener, UdpSocket};

/// What the time is when a stack begins.
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

    /// Takes IP packets as [`receive`](Self::receive) does, but leaves to `others` what nobody here waits for: for a node
    /// whose addresses are the machine's too. What such a node sends to itself stays here, where it is answered if
    /// nobody waits for it: a machine takes no packets of its own from others.
    ///
    /// `others` is called while the stack is locked: it must be quick, and must not use the stack.
    pub fn receive_beside<P: AsRef<[u8]>>(
        &self,
        packets: impl IntoIterator<Item = P>,
        mut others: impl FnMut(&[u8]),
    ) {
        let (mut inner, now) = self.shared.lock();
        for packet in packets {
            let packet = packet.as_ref();
            match inner.take(packet, now) {
                Fate::Taken => {}
                Fate::Unwanted { from: Some(from), is_answered } if inner.is_own(from) => {
                    if is_answered {
                        inner.answer(packet, now);
                    }
                }
                Fate::Unwanted { .. } => others(packet),
            }
        }
        inner.settle_touched(now);
    }

    /// Listens for TCP connections to `ip`, which may be one of a routed network; `None` and the unspecified
    /// addresses mean all own addresses. Port 0 takes a free one from 10002 to 19999.
    ///
    /// A connection goes to the most specific listener: one for its address comes before one for all, and one
    /// for its family before one for both. Without any it is reset, unless
    /// [a fallback](Self::register_fallback) wants it.
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
        let (mut inner, ip) = self.lock_to_listen(network, ip, false)?;
        let key = inner.listen(network, ip, port)?;
        Ok(TcpListener::new(Arc::clone(&self.shared), key))
    }

    /// Listens for datagrams as [`listen_tcp`](Self::listen_tcp) does for connections: each source that sends to
    /// the same address is a stream of its own. [A socket](Self::bind_udp) at that address comes first.
    ///
    /// # Errors
    /// When there is such a listener, or `ip` is not of `network`.
    pub fn listen_udp(
        &self,
        network: Network,
        ip: Option<IpAddr>,
        port: u16,
    ) -> Result<UdpListener, BindError> {
        let (mut inner, ip) = self.lock_to_listen(network, ip, true)?;
        let key = inner.listen_udp(network, ip, port)?;
        Ok(UdpListener::new(Arc::clone(&self.shared), key))
    }

    fn lock_to_listen(
        &self,
        network: Network,
        ip: Option<IpAddr>,
        is_udp: bool,
    ) -> Result<(MutexGuard<'_, Inner>, Option<IpAddr>), BindError> {
        if network.is_udp() != is_udp {
            return Err(BindError::WrongProtocol);
        }
        if ip.is_some_and(|ip| !network.has(ip)) {
            return Err(BindError::WrongFamily);
        }
        let (inner, _) = self.shared.lock();
        inner.check_open().map_err(|_| BindError::Closed)?;
        Ok((inner, ip.filter(|ip| !ip.is_unspecified())))
    }

    /// Listens for TCP connections to anywhere, own addresses and routed ones, that no other listener wants, if
    /// `decide` says so when it is given source and destination. Of several fallbacks the one that came first is
    /// asked first; what none takes is reset. Dropping the listener ends it.
    ///
    /// `decide` is called while the stack is locked: it must be quick, and must not use the stack.
    ///
    /// # Errors
    /// When there are 64 fallbacks already.
    ///
    /// Source: tailscale `tsnet/tsnet.go`, `Server.RegisterFallbackTCPHandler`.
    pub fn register_fallback(
        &self,
        decide: impl Fn(SocketAddr, SocketAddr) -> bool + Send + 'static,
    ) -> Result<TcpListener, BindError> {
        let (mut inner, _) = self.shared.lock();
        inner.check_open().map_err(|_| BindError::Closed)?;
        let key = inner.register_fallback(Box::new(decide))?;
        Ok(TcpListener::new(Arc::clone(&self.shared), key))
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

    /// Sends an ICMP echo request to `to` and waits for the answer; returns how long that took. How long it may
    /// take is up to the caller: dropping the future gives it up.
    ///
    /// # Errors
    /// [`AddrNotAvailable`](io::ErrorKind::AddrNotAvailable) without an own address of the family,
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) when `to` is no host,
    /// [`QuotaExceeded`](io::ErrorKind::QuotaExceeded) with 256 requests under way, and
    /// [`NetworkDown`](io::ErrorKind::NetworkDown) once [`Outgoing`] is gone.
    pub async fn ping(&self, to: IpAddr) -> io::Result<Duration> {
        if !is_host(to) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let token = getrandom::u64().map_err(io::Error::other)?.to_be_bytes();
        let ping = {
            let (mut inner, now) = self.shared.lock();
            let ident = inner.ping(to, token, now)?;
            PingGuard { shared: Arc::clone(&self.shared), ident }
        };
        poll_fn(|cx| ping.poll(cx)).await
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
