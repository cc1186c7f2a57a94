//! UDP: sockets of programs, and the datagrams that wait for them.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, UDP_HEADER_LEN, UdpPacket, UdpRepr};
use tokio::io::ReadBuf;

use crate::batch::PacketBatch;
use crate::packet::Flow;
use crate::stack::{Shared, is_host};

/// Most bytes that wait for one socket, with [`DATAGRAM_OVERHEAD_BYTES`] for each datagram. With more, the
/// oldest are dropped: who uses UDP wants the latest.
const WAITING_BYTES_MAX: usize = 256 * 1024;

/// What a waiting datagram costs beside its payload, so that empty ones have a bound as well.
const DATAGRAM_OVERHEAD_BYTES: usize = 64;

/// Most datagrams that wait for the way out; with more, senders wait.
const OUTGOING_MAX: usize = 256;

/// The table of UDP sockets.
#[derive(Debug)]
pub(crate) struct UdpTable {
    sockets: HashMap<SocketAddr, Waiting>,
    outgoing: PacketBatch,
    /// Tasks that wait for room in `outgoing`.
    senders: Vec<Waker>,
    mtu: usize,
}

/// What waits for one socket.
#[derive(Debug, Default)]
struct Waiting {
    datagrams: VecDeque<(SocketAddr, Box<[u8]>)>,
    /// The cost of `datagrams`.
    bytes: usize,
    receiver: Option<Waker>,
}

impl UdpTable {
    pub(crate) fn new(mtu: usize) -> Self {
        let outgoing = PacketBatch::new();
        Self { sockets: HashMap::new(), outgoing, senders: Vec::new(), mtu }
    }

    pub(crate) fn contains(&self, local: SocketAddr) -> bool {
        self.sockets.contains_key(&local)
    }

    pub(crate) fn insert(&mut self, local: SocketAddr) {
        self.sockets.insert(local, Waiting::default());
    }

    fn remove(&mut self, local: SocketAddr) {
        self.sockets.remove(&local);
    }

    /// Takes a datagram in, if there is a socket for it.
    pub(crate) fn handle(&mut self, flow: Flow, payload: &[u8]) -> bool {
        let Some(waiting) = self.sockets.get_mut(&flow.local) else { return false };
        waiting.push(flow.remote, payload);
        true
    }

    /// Queues a datagram for the way out.
    pub(crate) fn poll_send_to(
        &mut self,
        flow: Flow,
        payload: &[u8],
        sender: &Waker,
    ) -> Poll<io::Result<usize>> {
        let remote = flow.remote;
        if flow.local.is_ipv4() != remote.is_ipv4() || !is_host(remote.ip()) || remote.port() == 0 {
            return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
        }
        let length = UDP_HEADER_LEN + payload.len();
        let ip =
            IpRepr::new(flow.local.ip().into(), remote.ip().into(), IpProtocol::Udp, length, 64);
        if ip.buffer_len() > self.mtu {
            let message = "datagram is longer than a packet";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidInput, message)));
        }
        if self.outgoing.len() >= OUTGOING_MAX {
            if !self.senders.iter().any(|waker| waker.will_wake(sender)) {
                self.senders.push(sender.clone());
            }
            return Poll::Pending;
        }
        let ports = UdpRepr { src_port: flow.local.port(), dst_port: remote.port() };
        self.outgoing.push_with(ip.buffer_len(), |packet| write(packet, &ip, ports, payload));
        Poll::Ready(Ok(payload.len()))
    }

    /// Moves all that waits for the way out into `batch`.
    pub(crate) fn take_outgoing(&mut self, batch: &mut PacketBatch) {
        batch.append(&mut self.outgoing);
        self.senders.drain(..).for_each(Waker::wake);
    }

    pub(crate) fn wake_all(&mut self) {
        self.senders.drain(..).for_each(Waker::wake);
        self.sockets
            .values_mut()
            .filter_map(|waiting| waiting.receiver.take())
            .for_each(Waker::wake);
    }

    fn poll_receive(
        &mut self,
        local: SocketAddr,
        receiver: &Waker,
    ) -> Poll<(SocketAddr, Box<[u8]>)> {
        let waiting = self.sockets.get_mut(&local);
        let waiting = waiting.expect("invariant: a socket is in the table until it is dropped");
        let datagram = waiting.pop();
        if datagram.is_none() {
            waiting.receiver = Some(receiver.clone());
        }
        datagram.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Waiting {
    fn push(&mut self, from: SocketAddr, payload: &[u8]) {
        self.bytes += payload.len() + DATAGRAM_OVERHEAD_BYTES;
        self.datagrams.push_back((from, payload.into()));
        while self.bytes > WAITING_BYTES_MAX {
            self.pop();
        }
        self.receiver.take().into_iter().for_each(Waker::wake);
    }

    fn pop(&mut self) -> Option<(SocketAddr, Box<[u8]>)> {
        let datagram = self.datagrams.pop_front()?;
        self.bytes -= datagram.1.len() + DATAGRAM_OVERHEAD_BYTES;
        Some(datagram)
    }
}

fn write(packet: &mut [u8], ip: &IpRepr, ports: UdpRepr, payload: &[u8]) {
    let checksums = ChecksumCapabilities::default();
    ip.emit(&mut *packet, &checksums);
    let (source, destination): (IpAddress, IpAddress) = (ip.src_addr(), ip.dst_addr());
    let mut datagram = UdpPacket::new_unchecked(&mut packet[ip.header_len()..]);
    let fill = |bytes: &mut [u8]| bytes.copy_from_slice(payload);
    ports.emit(&mut datagram, &source, &destination, payload.len(), fill, &checksums);
}

/// A UDP socket.
///
/// A datagram is at most a packet long: nothing is fragmented. 256 KiB may wait to be received, 64 bytes per
/// datagram included; after that the oldest are dropped. Any number of tasks may send, one may receive.
#[derive(Debug)]
pub struct UdpSocket {
    shared: Arc<Shared>,
    local: SocketAddr,
}

impl UdpSocket {
    pub(crate) fn new(shared: Arc<Shared>, local: SocketAddr) -> Self {
        Self { shared, local }
    }

    /// The address that datagrams to this socket have.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Sends a datagram, waiting while 256 wait for the way out. Safe to cancel.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) when the datagram is longer than a packet, or `remote` is
    /// no host, has no port or is of the other family; [`NetworkDown`](io::ErrorKind::NetworkDown) once
    /// [`Outgoing`](crate::Outgoing) is gone.
    pub async fn send_to(&self, payload: &[u8], remote: SocketAddr) -> io::Result<usize> {
        poll_fn(|cx| self.poll_send_to(cx, payload, remote)).await
    }

    /// Sends a datagram, or wakes the task when there is room; see [`send_to`](Self::send_to).
    pub fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        payload: &[u8],
        remote: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        let (mut inner, _) = self.shared.lock();
        inner.poll_send_to(Flow { local: self.local, remote }, payload, cx)
    }

    /// Waits for a datagram; returns its length and who sent it. What does not fit into `buffer` is lost.
    /// Safe to cancel.
    ///
    /// # Errors
    /// [`NetworkDown`](io::ErrorKind::NetworkDown) once [`Outgoing`](crate::Outgoing) is gone.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let mut buffer = ReadBuf::new(buffer);
        let from = poll_fn(|cx| self.poll_recv_from(cx, &mut buffer)).await?;
        Ok((buffer.filled().len(), from))
    }

    /// Takes a datagram, or wakes the task when there is one; see [`recv_from`](Self::recv_from).
    pub fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<SocketAddr>> {
        let received = {
            let (mut inner, _) = self.shared.lock();
            inner.check_open()?;
            inner.udp.poll_receive(self.local, cx.waker())
        };
        received.map(|(from, payload)| {
            buffer.put_slice(&payload[..payload.len().min(buffer.remaining())]);
            Ok(from)
        })
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.shared.lock().0.udp.remove(self.local);
    }
}
