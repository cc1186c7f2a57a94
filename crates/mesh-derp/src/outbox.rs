//! What waits to be written to one client: bounded, and giving way by forgetting the oldest.
//!
//! Packets are kept as the frames they leave as, one behind the other. Disco and data have queues of their own, and
//! each its part of what is written.

use std::collections::{BTreeMap, VecDeque};

use mesh_keys::{KEY_BYTES, NodePublic};

use crate::fair_queue::FairQueue;
use crate::frame::{ClientFrame, HEADER_BYTES, PING_BYTES, PeerGoneReason, ServerFrame};
use crate::packet::{KINDS, PacketKind, Tally};
use crate::packet_queue::{Bounds, PacketQueue};
use crate::peer_present::PeerPresent;

/// Packets of one kind that wait for a client. The next one pushes out the oldest.
///
/// Deeper than the 32 of Go's relay, which reads 4 KiB at a time: here one read can bring more packets than that, which
/// must not push each other out. A sender's window in flight fits in, as TCP needs that has just begun.
pub const QUEUE_PACKETS_MAX: usize = 1024;

/// Bytes of such packets, with headers and keys: a full queue of `WireGuard`'s longest. Packets of 64 KiB are fewer.
pub const QUEUE_BYTES_MAX: usize = 1536 << 10;

/// Peers that a client waits to hear are gone. Of more it does not hear: only a client that takes in
/// nothing while that many peers leave comes so far, and it is about to be cut.
pub(crate) const PEER_GONE_MAX: usize = 16_384;

/// Notices for which an outbox keeps room while none waits.
const KEPT_NOTICES_MAX: usize = 64;

/// Keys that a watcher is told of in one write: some 56 KiB.
const PRESENCE_PER_WRITE: usize = 1024;

/// How many times as much may wait for another relay as for a client: it stands for many of them.
const FORWARDS_FACTOR: usize = 8;

/// Bytes of a frame around the packet that it carries to a client, or from one.
pub const AROUND_PACKET_BYTES: usize = HEADER_BYTES + KEY_BYTES;

const TO_CLIENT: Bounds = Bounds { packets: QUEUE_PACKETS_MAX, bytes: QUEUE_BYTES_MAX };

const TO_RELAY: Bounds = Bounds {
    packets: FORWARDS_FACTOR * QUEUE_PACKETS_MAX,
    bytes: FORWARDS_FACTOR * QUEUE_BYTES_MAX,
};

/// What waits to be written to one client.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pong: Option<[u8; PING_BYTES]>,
    disco: PacketQueue,
    data: FairQueue,
    /// Who is gone, and the number of the notice.
    gone: BTreeMap<NodePublic, (PeerGoneReason, u64)>,
    /// The notices in their order, and some that were forgotten.
    notices: VecDeque<Notice>,
    /// How many notices there have been.
    notice_count: u64,
    /// For one that watches the relay: who has come, or left (`None`).
    presence: BTreeMap<NodePublic, Option<PeerPresent>>,
}

/// When it is told that a peer is gone.
#[derive(Debug)]
struct Notice {
    key: NodePublic,
    number: u64,
    /// How far the queues must have come: no packet of the peer waits any more then.
    behind: [u64; 3],
}

/// The packets of one [`Outbox::poll_output`], by [`PacketKind`].
pub type Batch = [Tally; KINDS];

impl Outbox {
    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.pong.is_none()
            && self.notices.is_empty()
            && self.presence.is_empty()
            && self.disco.is_empty()
            && self.data.is_empty()
    }

    /// Queues a packet from `src`. Returns the packets that had to go for it.
    pub(crate) fn push_packet(
        &mut self,
        kind: PacketKind,
        src: NodePublic,
        payload: &[u8],
    ) -> Tally {
        let frame = ServerFrame::RecvPacket { src, payload };
        let sizes = [AROUND_PACKET_BYTES + payload.len(), payload.len()];
        self.push(kind, src, TO_CLIENT, sizes, |out| frame.encode(out))
    }

    /// Queues a packet from `src` to `dst` for another relay. Returns the packets that had to go for it.
    pub(crate) fn push_forward(
        &mut self,
        kind: PacketKind,
        src: NodePublic,
        dst: NodePublic,
        payload: &[u8],
    ) -> Tally {
        let frame = ClientFrame::ForwardPacket { src, dst, payload };
        let sizes = [AROUND_PACKET_BYTES + KEY_BYTES + payload.len(), payload.len()];
        self.push(kind, src, TO_RELAY, sizes, |out| frame.encode(out))
    }

    fn push(
        &mut self,
        kind: PacketKind,
        src: NodePublic,
        bounds: Bounds,
        sizes: [usize; 2],
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Tally {
        match kind {
            PacketKind::Disco => self.disco.push(bounds, sizes, encode),
            PacketKind::Data => self.data.push(src, bounds, sizes, encode),
        }
    }

    /// Queues the answer to a ping, unless one waits already: who pings faster than it reads gets fewer.
    pub(crate) fn push_pong(&mut self, data: [u8; PING_BYTES]) {
        self.pong.get_or_insert(data);
    }

    /// Queues the notice that a peer is gone, at most [`PEER_GONE_MAX`] of them.
    ///
    /// It goes behind all that waits now: packets that the peer sent before it left must not make the client
    /// believe that it is still there.
    pub(crate) fn push_gone(&mut self, key: NodePublic, reason: PeerGoneReason) {
        if self.notices.len() >= PEER_GONE_MAX {
            return;
        }
        self.notice_count += 1;
        let [quiet, bulk] = self.data.end();
        let behind = [self.disco.end(), quiet, bulk];
        self.gone.insert(key, (reason, self.notice_count));
        self.notices.push_back(Notice { key, number: self.notice_count, behind });
    }

    /// Forgets a notice that waits: the peer is not gone, or is back.
    pub(crate) fn forget_gone(&mut self, key: &NodePublic) {
        if !self.gone.is_empty() {
            self.gone.remove(key);
        }
    }

    /// Puts a notice that waits behind all that waits now: a packet of the peer has come late.
    pub(crate) fn postpone_gone(&mut self, key: &NodePublic) {
        if let Some(&(reason, _)) = self.gone.get(key) {
            self.push_gone(*key, reason);
        }
    }

    /// Queues, for a client that watches the relay, that `key` has come or left (`None`). What waited to be
    /// told of that key is forgotten, even that it was not here for a packet, which would come behind.
    ///
    /// Returns whether no more than `waiting_max` keys wait: if more do, the client must start anew.
    pub(crate) fn push_presence(
        &mut self,
        key: NodePublic,
        peer: Option<PeerPresent>,
        waiting_max: usize,
    ) -> bool {
        if !self.gone.is_empty() {
            self.gone.remove(&key);
        }
        self.presence.insert(key, peer);
        self.presence.len() <= waiting_max
    }

    /// Appends what waits to `out`, and says which packets that were: about `bytes_max` bytes of packets at most. Of
    /// [`Self::push_presence`] some may be left for the next time too.
    ///
    /// The pong comes first, then disco, then data. Either has half of the bytes for sure, however long the other's
    /// frames are.
    pub(crate) fn poll_output(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Batch {
        if let Some(data) = self.pong.take() {
            ServerFrame::Pong(data).encode(out);
        }
        let before = out.len();
        let disco = self.disco.drain(out, bytes_max / 2);
        let left = bytes_max.saturating_sub(out.len() - before).max(bytes_max / 2);
        let data = self.data.drain(out, left);
        let batch = [disco, data];
        self.tell_gone(out);
        for _ in 0..PRESENCE_PER_WRITE {
            let Some((key, peer)) = self.presence.pop_first() else { break };
            match peer {
                Some(peer) => ServerFrame::PeerPresent(peer).encode(out),
                None => {
                    ServerFrame::PeerGone { key, reason: PeerGoneReason::Disconnected }.encode(out);
                }
            }
        }
        batch
    }

    /// Appends the notices whose turn it is.
    fn tell_gone(&mut self, out: &mut Vec<u8>) {
        let [quiet, bulk] = self.data.passed();
        let passed = [self.disco.passed(), quiet, bulk];
        let is_due = |notice: &mut Notice| {
            passed.iter().zip(notice.behind).all(|(passed, behind)| *passed >= behind)
        };
        while let Some(Notice { key, number, .. }) = self.notices.pop_front_if(is_due) {
            if let Some(&(reason, newest)) = self.gone.get(&key)
                && newest == number
            {
                self.gone.remove(&key);
                ServerFrame::PeerGone { key, reason }.encode(out);
            }
        }
        if self.notices.is_empty() {
            self.notices.shrink_to(KEPT_NOTICES_MAX);
        }
    }
}

#[cfg(test)]
mod tests;
