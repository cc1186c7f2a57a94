//! What waits to be written to one client: bounded, and giving way by forgetting the oldest.
//!
//! Packets are kept as the frames they leave as, one behind the other, so that a packet is copied once on
//! its way in and a whole queue leaves in one write. Disco and data have a queue each.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use mesh_keys::{KEY_BYTES, NodePublic};

use crate::frame::{HEADER_BYTES, PING_BYTES, PeerGoneReason, ServerFrame};
use crate::packet::{KINDS, PacketKind, Tally};

/// Packets of one kind that wait for a client. The next one pushes out the oldest.
///
/// Deeper than the 32 of Go's relay, which reads 4 KiB at a time: here one read can bring more packets than that, which
/// must not push each other out. A sender's window in flight fits in, as TCP needs that has just begun.
pub const QUEUE_PACKETS_MAX: usize = 1024;

/// Bytes of such packets, with headers and keys: a full queue of `WireGuard`'s longest. Packets of 64 KiB are fewer.
pub const QUEUE_BYTES_MAX: usize = 1536 << 10;

/// Peers that a client waits to hear are gone. Of more it does not hear: only a client that takes in
/// nothing while that many peers leave comes so far, and it is about to be cut.
pub const PEER_GONE_MAX: usize = 16_384;

/// Bytes of a frame around the packet that it carries.
const AROUND_PACKET_BYTES: usize = HEADER_BYTES + KEY_BYTES;

/// What waits to be written to one client.
#[derive(Debug, Default)]
pub struct Outbox {
    pong: Option<[u8; PING_BYTES]>,
    queues: [PacketQueue; KINDS],
    gone: BTreeMap<NodePublic, PeerGoneReason>,
}

/// The packets of one [`Outbox::poll_output`], by [`PacketKind`].
pub type Batch = [Tally; KINDS];

impl Outbox {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.pong.is_none()
            && self.gone.is_empty()
            && self.queues.iter().all(|queue| queue.frame_bytes.is_empty())
    }

    /// Queues a packet from `src`. Returns the packets that had to go for it.
    ///
    /// A pending notice that `src` is gone is forgotten: it came back, and the notice would reach the
    /// client after this packet.
    pub fn push_packet(&mut self, kind: PacketKind, src: NodePublic, payload: &[u8]) -> Tally {
        if !self.gone.is_empty() {
            self.gone.remove(&src);
        }
        self.queues[kind as usize].push(src, payload)
    }

    /// Queues the answer to a ping, unless one waits already: who pings faster than it reads gets fewer.
    pub fn push_pong(&mut self, data: [u8; PING_BYTES]) {
        self.pong.get_or_insert(data);
    }

    /// Queues the notice that a peer is gone, at most [`PEER_GONE_MAX`] of them.
    pub fn push_gone(&mut self, key: NodePublic, reason: PeerGoneReason) {
        if self.gone.len() < PEER_GONE_MAX {
            self.gone.insert(key, reason);
        }
    }

    /// Appends all that waits to `out`, and says which packets that were.
    ///
    /// The pong comes first, then disco, then data, and who is gone last: packets that a peer sent before
    /// it left must not make the client believe that it is still there.
    pub fn poll_output(&mut self, out: &mut Vec<u8>) -> Batch {
        if let Some(data) = self.pong.take() {
            ServerFrame::Pong(data).encode(out);
        }
        let batch = self.queues.each_mut().map(|queue| queue.drain(out));
        for (key, reason) in mem::take(&mut self.gone) {
            ServerFrame::PeerGone { key, reason }.encode(out);
        }
        batch
    }

    /// Gives back the memory that is kept for the next packets.
    pub fn release_memory(&mut self) {
        for queue in &mut self.queues {
            queue.release_memory();
        }
    }
}

/// Frames in a row, the oldest first.
#[derive(Debug, Default)]
struct PacketQueue {
    /// The waiting frames are `bytes[start..]`; what is before has been dropped.
    bytes: Vec<u8>,
    start: usize,
    /// Length of each waiting frame in bytes; their sum is `bytes.len() - start`.
    frame_bytes: VecDeque<usize>,
}

impl PacketQueue {
    fn push(&mut self, src: NodePublic, payload: &[u8]) -> Tally {
        let dropped = self.make_room(AROUND_PACKET_BYTES + payload.len());
        // Moves no more bytes than were dropped since the last time.
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        let before = self.bytes.len();
        ServerFrame::RecvPacket { src, payload }.encode(&mut self.bytes);
        self.frame_bytes.push_back(self.bytes.len() - before);
        dropped
    }

    /// Drops the oldest packets until there is room for one more.
    fn make_room(&mut self, frame_bytes: usize) -> Tally {
        let mut dropped = Tally::default();
        while self.frame_bytes.len() >= QUEUE_PACKETS_MAX
            || self.bytes.len() - self.start + frame_bytes > QUEUE_BYTES_MAX
        {
            let Some(oldest) = self.frame_bytes.pop_front() else { break };
            self.start += oldest;
            dropped.add(oldest - AROUND_PACKET_BYTES);
        }
        dropped
    }

    fn drain(&mut self, out: &mut Vec<u8>) -> Tally {
        if out.is_empty() && self.start == 0 {
            mem::swap(out, &mut self.bytes);
        } else {
            out.extend_from_slice(&self.bytes[self.start..]);
            self.bytes.clear();
            self.start = 0;
        }
        let mut tally = Tally::default();
        for bytes in self.frame_bytes.drain(..) {
            tally.add(bytes - AROUND_PACKET_BYTES);
        }
        tally
    }

    fn release_memory(&mut self) {
        self.bytes.shrink_to_fit();
        self.frame_bytes.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests;
