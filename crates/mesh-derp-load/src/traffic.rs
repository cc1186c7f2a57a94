//! Who sends what to whom, and what came of it.

use mesh_derp::ServerFrame;
use mesh_keys::NodePublic;

use crate::latency::Latency;
use crate::pace::Pace;
use crate::poller::{LANES, Lane};
use crate::sequence::{Arrival, Sequence};
use crate::stamp::Stamp;

/// What makes a flow send.
#[derive(Debug, Clone)]
pub(crate) enum Drive {
    /// Nothing.
    Rest,
    /// Closed loop: never more than this many packets are under way.
    Window(u64),
    /// Open loop: whatever comes of them.
    Paced(Pace),
}

/// Packets from one client to another.
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    pub(crate) lane: Lane,
    /// Number of the sending client.
    pub(crate) from: usize,
    /// Number of the receiving client.
    pub(crate) to: usize,
    pub(crate) src: NodePublic,
    pub(crate) dst: NodePublic,
    /// Bytes of each packet.
    pub(crate) bytes: usize,
    pub(crate) drive: Drive,
    /// Packets that were sent.
    pub(crate) sent: u64,
    sequence: Sequence,
    /// Packets with lower numbers are not awaited any more.
    given_up: u64,
    /// `sequence.next()` when it was last looked whether the flow goes on.
    looked_at: u64,
}

impl Flow {
    /// A flow that has not begun.
    pub(crate) fn new(
        lane: Lane,
        [from, to]: [usize; 2],
        [src, dst]: [NodePublic; 2],
        bytes: usize,
    ) -> Self {
        let (sequence, drive) = (Sequence::default(), Drive::Rest);
        let (sent, given_up, looked_at) = (0, 0, 0);
        Self { lane, from, to, src, dst, bytes, drive, sent, sequence, given_up, looked_at }
    }

    /// Whether any packet has come.
    pub(crate) fn has_begun(&self) -> bool {
        self.sequence.next() > 0
    }

    /// How many packets a closed loop may send.
    pub(crate) fn room(&self) -> u64 {
        let Drive::Window(window) = self.drive else { return 0 };
        let under_way = self.sent - self.sequence.next().max(self.given_up);
        window.saturating_sub(under_way)
    }

    /// Gives up what is under way, if nothing has come since the last call: the last packets before a pause can be lost
    /// without a gap to show it. True if that makes room.
    pub(crate) fn give_up_if_stuck(&mut self) -> bool {
        let next = self.sequence.next();
        let stuck = next == self.looked_at && self.sent > next.max(self.given_up);
        self.looked_at = next;
        if stuck {
            self.given_up = self.sent;
        }
        stuck && self.room() > 0
    }
}

/// Counts of a lane since the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Packets that were given to a socket.
    pub(crate) sent: u64,
    /// Packets of open loops that were due and not sent, for too much waited for the socket already.
    pub(crate) held_back: u64,
    /// Packets that came for the first time.
    pub(crate) delivered: u64,
    /// Of them those that came after one with a higher number.
    pub(crate) late: u64,
    /// Packets that came again.
    pub(crate) twice: u64,
    /// Packets that came to another client than they were sent to, or under another name, or were never sent.
    pub(crate) misrouted: u64,
}

impl Tally {
    /// What has been counted since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            sent: self.sent - before.sent,
            held_back: self.held_back - before.held_back,
            delivered: self.delivered - before.delivered,
            late: self.late - before.late,
            twice: self.twice - before.twice,
            misrouted: self.misrouted - before.misrouted,
        }
    }
}

/// All flows and their counts.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) flows: Vec<Flow>,
    /// By lane.
    pub(crate) tallies: [Tally; LANES],
    /// One-way, by lane.
    pub(crate) latencies: [Latency; LANES],
    /// From ping to pong, by lane of the client.
    pub(crate) pongs: [Latency; LANES],
    /// Closed loops that may have room.
    pub(crate) roomy: Vec<usize>,
    /// When a client first heard that a peer is gone.
    pub(crate) first_gone_at: Option<u64>,
}

impl Traffic {
    /// Takes a frame that `client`, of that lane, was sent, read at `now`.
    pub(crate) fn handle(&mut self, client: usize, lane: Lane, now: u64, frame: &ServerFrame<'_>) {
        match frame {
            ServerFrame::RecvPacket { src, payload } => self.receive(client, src, payload, now),
            ServerFrame::Pong(data) => {
                self.pongs[lane as usize].record(now.saturating_sub(u64::from_be_bytes(*data)));
            }
            ServerFrame::PeerGone { .. } => {
                self.first_gone_at.get_or_insert(now);
            }
            ServerFrame::ServerKey(_)
            | ServerFrame::ServerInfo(_)
            | ServerFrame::KeepAlive
            | ServerFrame::PeerPresent(_)
            | ServerFrame::Ping(_) => {}
        }
    }

    fn receive(&mut self, client: usize, src: &NodePublic, payload: &[u8], now: u64) {
        let flow_of = |stamp: &Stamp| usize::try_from(stamp.flow).unwrap_or(usize::MAX);
        let stamp = Stamp::read(payload);
        let found = stamp.and_then(|stamp| Some((stamp, self.flows.get_mut(flow_of(&stamp))?)));
        let Some((stamp, flow)) = found else {
            self.tallies[Lane::Bulk as usize].misrouted += 1;
            return;
        };
        let tally = &mut self.tallies[flow.lane as usize];
        let is_ours = flow.to == client
            && flow.src == *src
            && flow.bytes == payload.len()
            && stamp.number < flow.sent;
        if !is_ours {
            tally.misrouted += 1;
            return;
        }
        match flow.sequence.receive(stamp.number) {
            Arrival::Twice => {
                tally.twice += 1;
                return;
            }
            Arrival::Late => tally.late += 1,
            Arrival::Next { .. } => {}
        }
        tally.delivered += 1;
        self.latencies[flow.lane as usize].record(now.saturating_sub(stamp.sent_at));
        if matches!(flow.drive, Drive::Window(_)) {
            self.roomy.push(flow_of(&stamp));
        }
    }

    /// Forgets how long things took.
    pub(crate) fn clear_latencies(&mut self) {
        self.latencies.iter_mut().chain(&mut self.pongs).for_each(Latency::clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic() -> Traffic {
        let keys = [1, 2].map(|byte| NodePublic::from_bytes([byte; 32]));
        let mut flow = Flow::new(Lane::Bulk, [0, 1], keys, 64);
        flow.drive = Drive::Window(4);
        flow.sent = 4;
        Traffic { flows: vec![flow], ..Traffic::default() }
    }

    fn deliver(traffic: &mut Traffic, client: usize, src: u8, number: u64) {
        let mut payload = [0; 64];
        Stamp { flow: 0, number, sent_at: 10 }.write(&mut payload);
        let src = NodePublic::from_bytes([src; 32]);
        let frame = ServerFrame::RecvPacket { src, payload: &payload };
        traffic.handle(client, Lane::Bulk, 1_000_010, &frame);
    }

    #[test]
    fn a_packet_counts_where_it_should_come_and_under_its_name() {
        let mut traffic = traffic();
        deliver(&mut traffic, 1, 1, 0);
        deliver(&mut traffic, 0, 1, 1);
        deliver(&mut traffic, 1, 2, 1);
        deliver(&mut traffic, 1, 1, 4);
        let expected = Tally { delivered: 1, misrouted: 3, ..Tally::default() };
        assert_eq!(traffic.tallies[0], expected);
        let told = traffic.latencies[0].quantile_ms(1.0).unwrap();
        assert!((told - 1.0).abs() < 0.01, "{told}");
    }

    #[test]
    fn lost_packets_make_room_when_a_later_one_comes_or_after_a_while() {
        let mut traffic = traffic();
        assert_eq!(traffic.flows[0].room(), 0);
        deliver(&mut traffic, 1, 1, 2);
        assert_eq!(traffic.flows[0].room(), 3);
        deliver(&mut traffic, 1, 1, 0);
        assert_eq!(traffic.flows[0].room(), 3);
        assert_eq!((traffic.tallies[0].late, traffic.tallies[0].twice), (1, 0));
        let flow = &mut traffic.flows[0];
        assert!(!flow.give_up_if_stuck(), "something has come since");
        assert!(flow.give_up_if_stuck());
        assert_eq!(flow.room(), 4);
        assert!(!flow.give_up_if_stuck());
    }
}
