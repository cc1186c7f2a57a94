//! What programs do with connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::task::{Context, Poll, Waker};

use smoltcp::time::{Duration, Instant};
use tokio::io::ReadBuf;

use super::arrivals::CONNECTIONS_MAX;
use super::{ANSWERS_MAX, Inner};
use crate::connection::{Connection, Phase};
use crate::connections::ConnectionId;
use crate::fallback::Decide;
use crate::listen::{BindError, ListenKey, Network};
use crate::packet::Flow;
use crate::ping::Ends;
use crate::tcp::Tcp;
use crate::udp::FlowId;

/// Ports of connections that programs open (RFC 6335).
const EPHEMERAL_PORTS: RangeInclusive<u16> = 49_152..=65_535;

/// Ports for who wants to listen on any. tsnet's range.
const LISTEN_PORTS: RangeInclusive<u16> = 10_002..=19_999;

/// How long a connection that the program has let go may take to deliver what was written.
const LINGER: Duration = Duration::from_secs(60);

impl Inner {
    /// Begins to connect.
    pub(crate) fn connect(
        &mut self,
        source: Option<IpAddr>,
        remote: SocketAddr,
        now: Instant,
    ) -> io::Result<(ConnectionId, SocketAddr)> {
        self.check_open()?;
        if self.connections.len() >= CONNECTIONS_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        if remote.port() == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let source = self.choose_source(source, remote.ip())?;
        let flow = |port| Flow { local: SocketAddr::new(source, port), remote };
        let is_taken = |inner: &Self, port| {
            let flow = flow(port);
            inner.connections.find(&flow).is_some() || inner.time_wait.contains(&flow, now)
        };
        let port = self.pick_port(EPHEMERAL_PORTS, is_taken).ok_or(io::ErrorKind::AddrInUse)?;
        let flow = flow(port);
        let seed = self.first_sequence(&flow, now);
        let tcp = Tcp::connect(flow, seed, self.mtu, now);
        let id = self.connections.insert(Connection::new(tcp, flow, Phase::Held));
        self.settle(id, now, false);
        Ok((id, flow.local))
    }

    /// Waits until the handshake is done.
    pub(crate) fn poll_connected(
        &mut self,
        id: ConnectionId,
        waker: &Waker,
    ) -> Poll<io::Result<()>> {
        let tcp = &mut self.held(id).tcp;
        if tcp.is_established() {
            return Poll::Ready(Ok(()));
        }
        if tcp.is_closed() {
            return Poll::Ready(Err(failure(tcp, io::ErrorKind::ConnectionAborted)));
        }
        tcp.set_writer(waker);
        Poll::Pending
    }

    /// Takes a connection that waits at a listener.
    pub(crate) fn poll_accept(
        &mut self,
        key: ListenKey,
        waker: &Waker,
    ) -> Poll<io::Result<(ConnectionId, Flow)>> {
        self.check_open()?;
        let Some(id) = self.listeners.next_waiting(key, waker) else { return Poll::Pending };
        self.set_phase(id, Phase::Held);
        let connection = self.held(id);
        connection.deadline = None;
        Poll::Ready(Ok((id, connection.flow)))
    }

    /// Takes bytes that have come.
    pub(crate) fn poll_read(
        &mut self,
        id: ConnectionId,
        buffer: &mut ReadBuf<'_>,
        waker: &Waker,
        now: Instant,
    ) -> Poll<io::Result<()>> {
        let tcp = &mut self.held(id).tcp;
        if tcp.unread() == 0 {
            return match tcp.failure() {
                Some(kind) => Poll::Ready(Err(kind.into())),
                None if tcp.has_ended() => Poll::Ready(Ok(())),
                None => {
                    tcp.set_reader(waker);
                    Poll::Pending
                }
            };
        }
        tcp.read(|parts| {
            let before = buffer.filled().len();
            for part in parts {
                buffer.put_slice(&part[..part.len().min(buffer.remaining())]);
            }
            buffer.filled().len() - before
        });
        self.settle(id, now, false);
        Poll::Ready(Ok(()))
    }

    /// Takes bytes to send.
    pub(crate) fn poll_write(
        &mut self,
        id: ConnectionId,
        bytes: &[u8],
        waker: &Waker,
        now: Instant,
    ) -> Poll<io::Result<usize>> {
        let connection = self.held(id);
        if connection.is_shut_down || connection.tcp.is_closed() {
            return Poll::Ready(Err(failure(&connection.tcp, io::ErrorKind::BrokenPipe)));
        }
        let written = connection.tcp.write(bytes, now);
        if written == 0 && !bytes.is_empty() {
            connection.tcp.set_writer(waker);
            return Poll::Pending;
        }
        self.settle(id, now, false);
        Poll::Ready(Ok(written))
    }

    /// Sends a FIN behind what was written.
    pub(crate) fn shut_down(&mut self, id: ConnectionId, now: Instant) {
        self.held(id).shut_down(now);
        self.settle(id, now, false);
    }

    /// Resets a connection.
    pub(crate) fn abort(&mut self, id: ConnectionId, now: Instant) {
        self.held(id).tcp.abort(Some(io::ErrorKind::ConnectionAborted));
        self.settle(id, now, false);
    }

    /// Takes back a connection that the program has let go.
    pub(crate) fn let_go(&mut self, id: ConnectionId, now: Instant) {
        if self.is_closed {
            return self.forget(id);
        }
        let connection = self.held(id);
        connection.deadline = Some(now + LINGER);
        connection.shut_down(now);
        self.set_phase(id, Phase::Orphaned);
        self.settle(id, now, false);
    }

    /// Begins to listen.
    pub(crate) fn listen(
        &mut self,
        network: Network,
        ip: Option<IpAddr>,
        port: u16,
    ) -> Result<ListenKey, BindError> {
        let key = |port| ListenKey::Address { network, ip, port };
        let is_taken = |inner: &Self, port| inner.listeners.contains(key(port));
        let port = self.choose_port(port, is_taken)?;
        self.listeners.insert(key(port));
        Ok(key(port))
    }

    /// Begins to listen for datagrams.
    pub(crate) fn listen_udp(
        &mut self,
        network: Network,
        ip: Option<IpAddr>,
        port: u16,
    ) -> Result<ListenKey, BindError> {
        let key = |port| ListenKey::Address { network, ip, port };
        let is_taken = |inner: &Self, port| inner.udp.flows.listeners.contains(key(port));
        let port = self.choose_port(port, is_taken)?;
        self.udp.flows.listeners.insert(key(port));
        Ok(key(port))
    }

    /// Begins to ask `decide`.
    pub(crate) fn register_fallback(&mut self, decide: Decide) -> Result<ListenKey, BindError> {
        let key = self.fallbacks.insert(decide)?;
        self.listeners.insert(key);
        Ok(key)
    }

    /// Ends a listener; connections that nobody has accepted are reset.
    pub(crate) fn close_listener(&mut self, key: ListenKey, now: Instant) {
        for id in self.connections.ids() {
            let Some(connection) = self.connections.get_mut(id) else { continue };
            if [Phase::Arriving(key), Phase::Waiting(key)].contains(&connection.phase) {
                connection.deadline = Some(now);
                self.settle(id, now, false);
            }
        }
        self.listeners.remove(key);
        self.fallbacks.remove(key);
    }

    /// Begins to take datagrams.
    pub(crate) fn bind_udp(&mut self, local: SocketAddr) -> Result<SocketAddr, BindError> {
        let at = |port| SocketAddr::new(local.ip(), port);
        let is_taken = |inner: &Self, port| inner.udp.contains(at(port));
        let port = self.choose_port(local.port(), is_taken)?;
        self.udp.insert(at(port));
        Ok(at(port))
    }

    /// Sends a datagram.
    pub(crate) fn poll_send_to(
        &mut self,
        flow: Flow,
        payload: &[u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.check_open()?;
        let sent = self.udp.poll_send_to(flow, payload, cx.waker());
        if sent.is_ready() {
            self.wake_consumer();
        }
        sent
    }

    /// Sends a datagram of a flow that was accepted.
    pub(crate) fn poll_send_flow(
        &mut self,
        id: FlowId,
        payload: &[u8],
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Poll<io::Result<usize>> {
        let flow = self.udp.flows.touch(id, now)?;
        self.poll_send_to(flow, payload, cx)
    }

    /// Sends an echo request; `token` is random. Returns by which number its answer is asked for.
    pub(crate) fn ping(&mut self, remote: IpAddr, token: [u8; 8], now: Instant) -> io::Result<u16> {
        self.check_open()?;
        let local = self.choose_source(None, remote)?;
        if self.answers.len() >= ANSWERS_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let ident = self.pings.send(Ends { local, remote }, token, &mut self.answers, now)?;
        self.wake_consumer();
        Ok(ident)
    }

    fn choose_source(&self, source: Option<IpAddr>, remote: IpAddr) -> io::Result<IpAddr> {
        let is_of_family = |address: &IpAddr| address.is_ipv4() == remote.is_ipv4();
        let source = source.or_else(|| self.addresses.iter().copied().find(is_of_family));
        source.filter(is_of_family).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// An error once nobody takes packets any more.
    pub(crate) fn check_open(&self) -> io::Result<()> {
        if self.is_closed { Err(io::ErrorKind::NetworkDown.into()) } else { Ok(()) }
    }

    /// The connection of a stream.
    fn held(&mut self, id: ConnectionId) -> &mut Connection {
        self.connections.get_mut(id).expect("invariant: a held connection is not removed")
    }

    fn choose_port(
        &mut self,
        port: u16,
        is_taken: impl Fn(&Self, u16) -> bool,
    ) -> Result<u16, BindError> {
        if port == 0 {
            self.pick_port(LISTEN_PORTS, is_taken).ok_or(BindError::NoFreePort)
        } else if is_taken(self, port) {
            Err(BindError::InUse)
        } else {
            Ok(port)
        }
    }

    fn pick_port(
        &mut self,
        ports: RangeInclusive<u16>,
        is_taken: impl Fn(&Self, u16) -> bool,
    ) -> Option<u16> {
        let first = self.next_port % ports.len();
        let mut candidates = ports.clone().skip(first).chain(ports.take(first));
        let port = candidates.find(|port| !is_taken(self, *port))?;
        self.next_port = self.next_port.wrapping_add(1);
        Some(port)
    }
}

/// Why a connection has failed, or else `otherwise`.
fn failure(tcp: &Tcp, otherwise: io::ErrorKind) -> io::Error {
    tcp.failure().unwrap_or(otherwise).into()
}
