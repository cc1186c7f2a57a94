//! What waits to be written to the relay: bounded, and giving way by forgetting the oldest packets.

use std::collections::VecDeque;
use std::mem;
use std::time::Instant;

use bytes::Bytes;
use mesh_derp::{
    AROUND_PACKET_BYTES, ClientFrame, KINDS, PACKET_BYTES_MAX, PING_BYTES, PacketKind, Rate, Tally,
    TokenBucket,
};
use mesh_keys::NodePublic;

/// Packets of one kind, disco or data, that wait for the relay. The next one pushes out the oldest.
pub const QUEUE_PACKETS_MAX: usize = 512;

/// Bytes of the packets of one kind that wait for the relay. The next packet pushes out as many of the oldest as
/// it takes.
///
/// More would not arrive more: it would only arrive later, and all flows of the node wait in this one line.
pub const QUEUE_BYTES_MAX: usize = 1 << 20;

/// Bytes from which on one write takes no further packet. It has at most those of one packet more.
const WRITE_BYTES: usize = 64 << 10;

/// Bytes of the frame of the longest packet.
pub(crate) const SEND_BYTES_MAX: u64 = (AROUND_PACKET_BYTES + PACKET_BYTES_MAX) as u64;

const _: () = assert!(PACKET_BYTES_MAX <= QUEUE_BYTES_MAX, "every packet fits the empty queue");

/// What a client of a region has done so far, by [`PacketKind`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether a relay of the region has logged us in.
    pub is_connected: bool,
    /// Packets that were handed to a connection. What was on its way when that broke is lost unseen.
    pub sent: [Tally; KINDS],
    /// Packets that gave way to later ones, waited in vain for a connection, are longer than a relay takes, or beyond
    /// the rate that it has told us to keep to.
    pub dropped: [Tally; KINDS],
}

/// What waits to be written to the relay.
#[derive(Debug)]
pub(crate) struct Outbox {
    is_home: bool,
    /// What the relay of this connection takes `is_home` for.
    noted_home: bool,
    pong: Option<[u8; PING_BYTES]>,
    queues: [PacketQueue; KINDS],
    /// What the relay of this connection has told us to keep to.
    budget: Option<TokenBucket>,
    status: Status,
}

impl Outbox {
    pub(crate) fn new(is_home: bool) -> Self {
        Self {
            is_home,
            noted_home: false,
            pong: None,
            queues: Default::default(),
            budget: None,
            status: Status::default(),
        }
    }

    pub(crate) fn status(&self) -> Status {
        self.status
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.pong.is_none()
            && self.is_home == self.noted_home
            && self.queues.iter().all(|queue| queue.packets.is_empty())
    }

    /// Queues a packet for `dst`.
    pub(crate) fn push_packet(&mut self, dst: NodePublic, packet: Bytes) {
        let kind = PacketKind::of(&packet) as usize;
        if packet.len() > PACKET_BYTES_MAX {
            self.status.dropped[kind].add(packet.len());
        } else {
            self.queues[kind].push(dst, packet, &mut self.status.dropped[kind]);
        }
    }

    /// Queues the answer to a ping, unless one waits already: who pings faster than it reads gets fewer.
    pub(crate) fn push_pong(&mut self, data: [u8; PING_BYTES]) {
        self.pong.get_or_insert(data);
    }

    /// Has the relay told whether it is our home, as well as each later one.
    pub(crate) fn set_home(&mut self, is_home: bool) {
        self.is_home = is_home;
    }

    /// Begins with a relay that knows nothing of us, and takes so much if it says. The packets that wait are for it.
    pub(crate) fn handle_connected(&mut self, rate: Option<Rate>, now: Instant) {
        self.budget = rate.map(|rate| TokenBucket::new(rate, now));
        self.status.is_connected = true;
        self.noted_home = false;
        self.pong = None;
    }

    pub(crate) fn handle_disconnected(&mut self) {
        self.status.is_connected = false;
    }

    /// Forgets the packets that wait: whoever they are for has given them up.
    pub(crate) fn drop_packets(&mut self) {
        for (queue, dropped) in self.queues.iter_mut().zip(&mut self.status.dropped) {
            for (_, packet) in mem::take(queue).packets {
                dropped.add(packet.len());
            }
        }
    }

    /// Appends the frames of one write to `out`: the pong, the home, disco, then data. Packets beyond the relay's rate
    /// are dropped, as by Go's client: held back by the relay, all that comes after them would be late too.
    pub(crate) fn poll_output(&mut self, out: &mut Vec<u8>, now: Instant) {
        if let Some(data) = self.pong.take() {
            ClientFrame::Pong(data).encode(out);
        }
        if self.is_home != self.noted_home {
            ClientFrame::NotePreferred(self.is_home).encode(out);
            self.noted_home = self.is_home;
        }
        for (kind, queue) in self.queues.iter_mut().enumerate() {
            while out.len() < WRITE_BYTES
                && let Some((dst, packet)) = queue.pop()
            {
                let bytes = (AROUND_PACKET_BYTES + packet.len()) as u64;
                if self.budget.as_mut().is_none_or(|budget| budget.try_take(bytes, now)) {
                    ClientFrame::SendPacket { dst, payload: &packet }.encode(out);
                    self.status.sent[kind].add(packet.len());
                } else {
                    self.status.dropped[kind].add(packet.len());
                }
            }
        }
    }
}

/// Packets of one kind, the oldest first.
#[derive(Debug, Default)]
struct PacketQueue {
    packets: VecDeque<(NodePublic, Bytes)>,
    /// Sum of the packets' lengths.
    bytes: usize,
}

impl PacketQueue {
    fn push(&mut self, dst: NodePublic, packet: Bytes, dropped: &mut Tally) {
        self.bytes += packet.len();
        self.packets.push_back((dst, packet));
        while (self.packets.len() > QUEUE_PACKETS_MAX || self.bytes > QUEUE_BYTES_MAX)
            && let Some((_, oldest)) = self.pop()
        {
            dropped.add(oldest.len());
        }
    }

    fn pop(&mut self) -> Option<(NodePublic, Bytes)> {
        let (dst, packet) = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some((dst, packet))
    }
}

#[cfg(test)]
mod tests;
