//! Relays write to clients, who read it.

use mesh_derp::{Batch, FrameReader, PacketKind, PeerGoneReason, ServerFrame};

use super::{World, number, public};
use crate::ledger::Fate;
use crate::link::{Belief, Bounds};
use crate::packet::{ConnectionId, parse_packet};

/// Bytes that each sender may put before the bulk of data, while so many bytes of the bulk leave.
const QUIET_BYTES: u64 = 4 << 10;
const ROUND_BYTES: u64 = 64 << 10;

/// Limits of one write. Real ones are the longest.
const WRITES: [usize; 5] = [2, 500, 5000, 64 << 10, 64 << 10];

/// Not-here answers that a client gets at once, and then one a second.
const NOT_HERE_BURST: u64 = 3;

impl World {
    /// Has whoever writes to a client do so, as far as the pipe takes it.
    pub(crate) fn relay_writes(&mut self, id: ConnectionId) {
        let link = self.link(id);
        link.wakes.sleep(link.session.client());
        if link.session.client().is_cut() {
            return self.end(id);
        }
        loop {
            let link = self.link(id);
            link.fill_pipe();
            if link.writing > 0 {
                return;
            }
            self.drain(id);
            if self.link(id).writing == 0 {
                return;
            }
        }
    }

    /// Drains once what waits for a client, and has the client read it.
    fn drain(&mut self, id: ConnectionId) {
        let bytes_max = self.dice.pick(&WRITES);
        let link = self.link(id);
        let mut bytes = Vec::new();
        let batch = link.session.client().drain(&mut bytes, bytes_max);
        link.writing = bytes.len();
        if link.bounds == Bounds::RELAY {
            // Read by the other relay, if it is still there.
            link.trunk.iter_mut().for_each(|trunk| trunk.to_home.extend_from_slice(&bytes));
            return assert_eq!(batch, Batch::default(), "packets to a relay");
        }
        link.remove_waiting(&batch, bytes.is_empty());
        let relay = link.relay;
        let (mut input, mut seen) = (&bytes[..], Batch::default());
        while let Some(frame) = FrameReader::new().next_from_server(&mut input).expect("frames") {
            if let Some((kind, payload_bytes)) = self.client_takes(id, &frame) {
                seen[kind as usize].add(payload_bytes);
            }
        }
        assert!(input.is_empty(), "part of a frame");
        assert_eq!(seen, batch, "drained, and said to be");
        assert_eq!(self.link(id).pong, None, "a pong leaves with the next write");
        self.count_written(relay, &batch);
    }

    /// How many bytes may be written before a packet that waits is among them: all that can wait, and the quiet that
    /// come meanwhile. Disco may take half of what is written.
    pub(super) fn patience(&self, bounds: Bounds) -> u64 {
        let quiet =
            bounds.bytes_max.div_ceil(ROUND_BYTES) * self.senders.len() as u64 * QUIET_BYTES;
        2 * (bounds.bytes_max * 5 / 4 + quiet)
    }

    /// Has a client read a frame, and tells the kind and length of the packet in it.
    fn client_takes(
        &mut self,
        id: ConnectionId,
        frame: &ServerFrame<'_>,
    ) -> Option<(PacketKind, usize)> {
        let patience = self.patience(Bounds::CLIENT);
        let elapsed = (self.now - self.began_at).as_secs();
        let link = self.links.get_mut(&id).expect("a live link");
        match *frame {
            ServerFrame::RecvPacket { src, payload } => {
                let (flow, number) = parse_packet(payload);
                let from = self.keys[flow.from as usize];
                assert_eq!((src, flow.to), (public(from), link.key), "source and destination");
                let waited = self.ledger.write(flow, number, id, Fate::Written(id));
                assert!(link.written - waited.written <= patience, "{flow:?} {number} was starved");
                link.written += payload.len() as u64;
                let heard_at = waited.handled_at;
                link.beliefs.insert(from, Belief { is_there: true, heard_at });
                return Some((flow.kind(), payload.len()));
            }
            ServerFrame::PeerGone { key, reason } => {
                let key = number(key);
                let gone_at = link.gone_at.get(&key).expect("a peer that was gone");
                let belief = link.beliefs.entry(key).or_default();
                // Of several that came late, the last one need not be the last that is read.
                let came_late = link.doubted_at.get(&key).is_some_and(|at| *at >= belief.heard_at);
                let is_news = belief.heard_at < *gone_at || came_late;
                assert!(is_news, "{key} was heard after it was gone");
                belief.is_there = false;
                link.not_here += u64::from(reason == PeerGoneReason::NotHere);
                assert!(link.not_here <= NOT_HERE_BURST + elapsed, "too many not-here answers");
            }
            ServerFrame::Pong(data) => assert_eq!(link.pong.take(), Some(data)),
            ServerFrame::ServerKey(_)
            | ServerFrame::ServerInfo(_)
            | ServerFrame::KeepAlive
            | ServerFrame::PeerPresent(_)
            | ServerFrame::Ping(_) => panic!("{frame:?} to a client"),
        }
        None
    }
}
