//! UDP: who gets which datagram, and the datagrams that wait.

mod flows;
mod listener;
mod socket;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::task::{Poll, Waker};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::Instant;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, UDP_HEADER_LEN, UdpPacket, UdpRepr};

use crate::batch::PacketBatch;
use crate::packet::Flow;
use crate::stack::is_host;

pub(crate) use flows::{FlowId, Flows};
pub use listener::{UdpListener, UdpStream};
pub use socket::UdpSocket;

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
    pub(crate) flows: Flows,
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
        let (sockets, flows) = (HashMap::new(), Flows::default());
        Self { sockets, flows, outgoing, senders: Vec::new(), mtu }
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

    /// Takes a datagram in, if there is somebody for it: its flow, a socket at its address, a listener.
    pub(crate) fn handle(
        &mut self,
        flow: Flow,
        payload: &[u8],
        is_own: bool,
        now: Instant,
    ) -> bool {
        if self.flows.handle(flow, payload, now) {
            return true;
        }
        if let Some(waiting) = self.sockets.get_mut(&flow.local) {
            waiting.push(flow.remote, payload, WAITING_BYTES_MAX);
            return true;
        }
        self.flows.admit(flow, payload, is_own, now)
    }

    /// When a flow ends, or may do so.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.flows.next_timer()
    }

    /// Ends flows whose time is over.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.flows.handle_timeout(now);
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
        self.flows.wake_all();
    }

    fn poll_receive(
        &mut self,
        local: SocketAddr,
        receiver: &Waker,
    ) -> Poll<(SocketAddr, Box<[u8]>)> {
        let waiting = self.sockets.get_mut(&local);
        let waiting = waiting.expect("invariant: a socket is in the table until it is dropped");
        waiting.poll(receiver)
    }
}

impl Waiting {
    fn push(&mut self, from: SocketAddr, payload: &[u8], bytes_max: usize) {
        self.bytes += payload.len() + DATAGRAM_OVERHEAD_BYTES;
        self.datagrams.push_back((from, payload.into()));
        while self.bytes > bytes_max {
            self.pop();
        }
        self.receiver.take().into_iter().for_each(Waker::wake);
    }

    fn poll(&mut self, receiver: &Waker) -> Poll<(SocketAddr, Box<[u8]>)> {
        let datagram = self.pop();
        if datagram.is_none() {
            self.receiver = Some(receiver.clone());
        }
        datagram.map_or(Poll::Pending, Poll::Ready)
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
