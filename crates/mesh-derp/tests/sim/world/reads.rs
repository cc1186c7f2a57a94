//! Relays read what clients and other relays have sent.

use std::mem;

use mesh_derp::{Batch, ClientFrame, CloseReason, DropReason, KINDS, SessionError};

use super::{World, add, public};
use crate::ledger::{Fate, Waiting};
use crate::link::Bounds;
use crate::packet::{ConnectionId, Flow, Key, parse_packet};

/// What a chunk should do.
#[derive(Debug, Default)]
struct Expected {
    received: Batch,
    forwarded: Batch,
    received_forwarded: Batch,
    /// Packets to keys that nobody has, and those that other relays passed on.
    absent: Batch,
    forwarded_in_vain: Batch,
    /// Whether packets of a kind may have pushed others out.
    may_drop: [bool; KINDS],
}

impl World {
    /// Has a relay read from a client, at most so many bytes.
    pub(crate) fn relay_reads(&mut self, id: ConnectionId, bytes_max: usize) {
        let now = self.now;
        let link = self.link(id);
        if link.session.client().is_cut() {
            return self.end(id);
        }
        let chunk = link.take_sent(bytes_max);
        let (expected_result, expected) = self.handle(id, &chunk);
        let link = self.link(id);
        let (result, relay) = (link.session.take(&chunk, now), link.relay);
        let counts = link.session.take_counts();
        assert_eq!(result, expected_result);
        assert_eq!(counts.received, expected.received);
        assert_eq!(counts.forwarded, expected.forwarded);
        assert_eq!(counts.received_forwarded, expected.received_forwarded);
        let dropped = |reason| counts.dropped[reason as usize];
        assert_eq!(dropped(DropReason::UnknownDestination), expected.absent);
        assert_eq!(dropped(DropReason::UnknownForwarded), expected.forwarded_in_vain);
        assert_eq!(dropped(DropReason::DestinationGone), Batch::default());
        for (kind, dropped) in dropped(DropReason::QueueFull).iter().enumerate() {
            let may_be = expected.may_drop[kind];
            assert!(may_be || dropped.packets == 0, "{dropped:?} dropped, and there was room");
        }
        self.relays[relay].count(&counts);
        self.check_memory(relay);
        if result.is_err() {
            self.end(id);
        }
    }

    /// What a chunk from a client should do.
    fn handle(&mut self, id: ConnectionId, chunk: &[u8]) -> (Result<(), SessionError>, Expected) {
        let mut expected = Expected::default();
        let mut frames = mem::take(&mut self.link(id).frames);
        let result = frames.take_from_client(chunk, |frame| {
            self.moment += 1;
            self.handle_frame(id, frame, &mut expected)
        });
        self.link(id).frames = frames;
        (result, expected)
    }

    fn handle_frame(
        &mut self,
        id: ConnectionId,
        frame: &ClientFrame<'_>,
        expected: &mut Expected,
    ) -> Result<(), SessionError> {
        let link = self.links.get_mut(&id).expect("a live link");
        self.relays[link.relay].presence.speak(link.key, id);
        let offence = match *frame {
            ClientFrame::SendPacket { payload, .. } => {
                self.handle_packet(id, payload, expected);
                return Ok(());
            }
            ClientFrame::ForwardPacket { src, dst, payload } if link.bounds == Bounds::RELAY => {
                let (flow, _) = parse_packet(payload);
                let from = self.keys[flow.from as usize];
                assert_eq!((src, dst), (public(from), public(flow.to)), "source and destination");
                self.handle_forwarded(id, from, payload, expected);
                return Ok(());
            }
            ClientFrame::Ping(data) => {
                link.pong.get_or_insert(data);
                return Ok(());
            }
            ClientFrame::NotePreferred(is_home) => {
                link.is_home = is_home;
                return Ok(());
            }
            ClientFrame::Pong(_) => return Ok(()),
            ClientFrame::WatchConns if link.bounds == Bounds::RELAY => return Ok(()),
            ClientFrame::ForwardPacket { .. } => 0x0a,
            ClientFrame::WatchConns => 0x10,
            ClientFrame::ClosePeer(_) => 0x11,
        };
        Err(CloseReason::MeshKeyMissing { frame_type: offence }.into())
    }

    /// A packet of a client: for another, or for a relay that has the other.
    fn handle_packet(&mut self, id: ConnectionId, payload: &[u8], expected: &mut Expected) {
        let (flow, number) = parse_packet(payload);
        let kind = flow.kind() as usize;
        let link = &self.links[&id];
        let (from, relay) = (link.key, &mut self.relays[link.relay]);
        expected.received[kind].add(payload.len());
        let active = relay.presence.active(flow.to);
        let Some(receiver) = active.or_else(|| relay.presence.trunk(flow.to)) else {
            expected.absent[kind].add(payload.len());
            let is_not_here = flow.is_disco.then_some((flow.to, self.moment));
            self.link(id).gone_at.extend(is_not_here);
            return self.ledger.handle(flow, number, Fate::Absent);
        };
        relay.presence.send(from, flow.to);
        if active.is_none() {
            expected.forwarded[kind].add(payload.len());
        }
        relay.routed[kind].add(payload.len());
        self.wait(id, receiver, (flow, number), payload, true, expected);
    }

    /// A packet that another relay passes on: for a client of this relay, or nobody.
    fn handle_forwarded(
        &mut self,
        id: ConnectionId,
        from: Key,
        payload: &[u8],
        expected: &mut Expected,
    ) {
        let (flow, number) = parse_packet(payload);
        let kind = flow.kind() as usize;
        let relay = &mut self.relays[self.links[&id].relay];
        expected.received_forwarded[kind].add(payload.len());
        let Some(receiver) = relay.presence.active(flow.to) else {
            expected.forwarded_in_vain[kind].add(payload.len());
            return self.ledger.handle(flow, number, Fate::Absent);
        };
        let is_sender_known = relay.presence.is_reached(from);
        if is_sender_known {
            relay.presence.send(from, flow.to);
        }
        relay.routed[kind].add(payload.len());
        self.wait(id, receiver, (flow, number), payload, is_sender_known, expected);
    }

    fn wait(
        &mut self,
        via: ConnectionId,
        receiver: ConnectionId,
        (flow, number): (Flow, u32),
        payload: &[u8],
        is_sender_known: bool,
        expected: &mut Expected,
    ) {
        let (kind, handled_at) = (flow.kind() as usize, self.moment);
        let from = self.keys[flow.from as usize];
        let link = self.link(receiver);
        link.doubted_at.extend((!is_sender_known).then_some((from, handled_at)));
        link.add_waiting(kind, payload.len());
        expected.may_drop[kind] |= link.may_have_dropped(kind);
        let waiting = Waiting { receiver, via, handled_at, written: link.written };
        self.ledger.handle(flow, number, Fate::Waits(waiting));
    }

    /// Counts packets that a relay has written.
    pub(super) fn count_written(&mut self, relay: usize, batch: &Batch) {
        add(&mut self.relays[relay].written, batch);
    }
}
