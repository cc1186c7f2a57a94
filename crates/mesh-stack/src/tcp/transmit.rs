//! What a connection sends, and when.

use std::io;
use std::ops::Range;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr};

use super::{
    IDLE_TIMEOUT, KEEP_ALIVE, Probe, STALL_TIMEOUT, Stage, Tcp, WINDOW_SHIFT, distance, wire,
};
use crate::batch::PacketBatch;

/// A sender hears of so many segments at the latest, also in the middle of a batch.
const SEGMENTS_PER_ACK: u8 = 4;

/// Something to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Reset(u64),
    Syn,
    /// Bytes from a number on, and the FIN when it is behind them.
    Segment {
        start: u64,
        length: usize,
    },
    /// An old number without bytes: the peer answers with where it stands.
    Question,
    Acknowledgement,
}

impl Tcp {
    /// Adds a packet to `batch`, if there is something to send.
    pub(crate) fn poll_packet(&mut self, batch: &mut PacketBatch, now: Instant) -> bool {
        self.handle_timers(now);
        let Some(turn) = self.next_turn(now) else { return false };
        self.send(turn, batch, now);
        self.arm(now);
        true
    }

    /// Writes an acknowledgement that must not wait until all segments of a batch are in: a sender that hears of many at once
    /// grows and recovers slowly, and sends many at once.
    pub(crate) fn poll_acknowledgement(&mut self, batch: &mut PacketBatch, now: Instant) {
        let is_due = !self.early.is_empty() || self.unanswered >= SEGMENTS_PER_ACK;
        let is_alone = || self.reset.is_none() && self.next_segment().is_none();
        if self.stage == Stage::Open && self.acks_due > 0 && is_due && is_alone() {
            self.send(Turn::Acknowledgement, batch, now);
        }
    }

    pub(super) fn has_something_to_send(&self, now: Instant) -> bool {
        self.next_turn(now).is_some()
    }

    /// When something happens by itself.
    pub(super) fn next_timer(&self) -> Instant {
        let gives_up_at = self.gives_up_at();
        let asks_at = (!self.is_waiting()).then(|| self.asks_at());
        let timers = [self.retry_at, self.ack_at, asks_at, self.trims_at()];
        timers.into_iter().flatten().fold(gives_up_at, Instant::min)
    }

    fn asks_at(&self) -> Instant {
        self.heard_at.max(self.asked_at) + KEEP_ALIVE
    }

    fn gives_up_at(&self) -> Instant {
        if self.is_waiting() {
            self.heard_at.max(self.waits_since) + STALL_TIMEOUT
        } else {
            self.heard_at + IDLE_TIMEOUT
        }
    }

    fn handle_timers(&mut self, now: Instant) {
        if self.stage == Stage::Closed {
            return;
        }
        if self.gives_up_at() <= now {
            return self.abort(Some(io::ErrorKind::TimedOut));
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            if self.may_probe() { self.probe = Probe::Due } else { self.retry() }
        }
        if self.stage == Stage::Open && !self.is_waiting() && self.asks_at() <= now {
            self.must_ask = true;
        }
    }

    /// Whether the last segment may be sent again before all counts as lost.
    fn may_probe(&self) -> bool {
        let is_out = self.stage == Stage::Open && self.unacknowledged < self.next;
        is_out && self.has_sack && self.probe == Probe::Unsent && self.recovery.is_none()
    }

    /// How long an answer may take before something is done.
    fn patience(&self) -> Duration {
        let is_alone = distance(self.unacknowledged, self.next) <= self.segment_bytes;
        let probe = self.may_probe().then(|| self.round_trip.probe_timeout(is_alone)).flatten();
        probe.unwrap_or_else(|| self.round_trip.timeout())
    }

    /// Nothing has come in time.
    fn retry(&mut self) {
        self.round_trip.note_expired();
        self.round_trip.note_resent();
        if self.stage != Stage::Open {
            self.next = self.first;
        } else if self.unacknowledged == self.next {
            self.must_ask = true;
        } else {
            self.cubic.note_timeout();
            // The peer may have thrown away what it has only said to have (RFC 2018).
            self.sacked.clear();
            self.duplicates = 0;
            self.must_fill_again = false;
            (self.lost, self.resent) = (self.next, self.unacknowledged);
            self.recovery = Some((self.next, false));
        }
    }

    /// Sees to it that what the peer does not answer is tried again.
    pub(super) fn arm(&mut self, now: Instant) {
        let is_syn_out = self.stage != Stage::Open && self.next > self.first;
        let waits = is_syn_out || (self.stage == Stage::Open && self.is_waiting());
        if !waits {
            self.retry_at = None;
        } else if self.retry_at.is_none() && (is_syn_out || self.next_segment().is_none()) {
            self.retry_at = Some(now + self.patience());
        }
    }

    fn next_turn(&self, now: Instant) -> Option<Turn> {
        if let Some(sequence) = self.reset {
            return Some(Turn::Reset(sequence));
        }
        match self.stage {
            Stage::Closed => None,
            Stage::SynSent | Stage::SynReceived => (self.next == self.first).then_some(Turn::Syn),
            Stage::Open => {
                let owes = self.acks_due > 0 || self.ack_at.is_some_and(|at| at <= now);
                let duplicates = self.acks_due > 1;
                let acknowledgement = || owes.then_some(Turn::Acknowledgement);
                let question = self.must_ask.then_some(Turn::Question);
                // Acknowledgements that only repeat are lost on the peer when they go with bytes.
                let first = duplicates.then_some(Turn::Acknowledgement);
                first.or_else(|| self.next_segment()).or(question).or_else(acknowledgement)
            }
        }
    }

    /// The bytes that come next: what was lost, then what was never sent.
    fn next_segment(&self) -> Option<Turn> {
        let probe = || (self.probe == Probe::Due).then(|| self.last_segment());
        self.next_lost().or_else(|| self.next_fresh()).or_else(probe)
    }

    fn last_segment(&self) -> Turn {
        let end = self.next.min(self.data_end());
        let length = distance(self.data_start(), end).min(self.segment_bytes);
        Turn::Segment { start: end - length as u64, length }
    }

    fn next_lost(&self) -> Option<Turn> {
        if self.lost <= self.unacknowledged {
            return None;
        }
        let resent = if self.must_fill_again { 0 } else { self.resent };
        let (start, sacked) = self.sacked.first_gap(resent.max(self.unacknowledged));
        let data_end = self.data_end();
        if start >= self.lost || start >= self.next {
            return None;
        }
        let end = sacked.unwrap_or(self.next).min(data_end).min(self.next);
        let length = distance(start, end).min(self.segment_bytes);
        // The first one goes in any case: it is what the peer waits for.
        let is_first = resent <= self.unacknowledged;
        (is_first || self.fits(length)).then_some(Turn::Segment { start, length })
    }

    fn next_fresh(&self) -> Option<Turn> {
        let (start, data_end) = (self.next, self.data_end());
        let turn = |length| Some(Turn::Segment { start, length });
        let available = distance(start, data_end);
        if available == 0 {
            return if self.fin == Some(start) { turn(0) } else { None };
        }
        let room = distance(start, self.edge);
        let length = available.min(self.segment_bytes).min(room);
        let is_whole = length == self.segment_bytes || length == available;
        // Bytes in small pieces only when the peer has not taken more for long (RFC 9293, 3.8.6.2.1).
        let is_worth_it = is_whole || length as u64 >= self.window_max / 2 || self.must_ask;
        (length > 0 && is_worth_it && self.fits(length)).then_some(Turn::Segment { start, length })
    }

    /// Whether so much more may be under way.
    fn fits(&self, length: usize) -> bool {
        let under_way = self.under_way();
        let has_room = if self.is_recovering() {
            length <= self.allowance
        } else {
            under_way + length <= self.cubic.window()
        };
        under_way == 0 || has_room
    }

    /// Bytes that are in the network, as far as is known (RFC 6675, `pipe`).
    pub(super) fn under_way(&self) -> usize {
        let sent = self.next - self.unacknowledged;
        let arrived = self.arrived_early();
        let from = self.resent.max(self.unacknowledged);
        let lost = self.lost.min(self.next).saturating_sub(from);
        let lost = lost - self.sacked.size_within(from..from + lost);
        distance(arrived + lost, sent)
    }

    /// Bytes that have arrived behind a hole: a duplicate tells of a segment.
    pub(super) fn arrived_early(&self) -> u64 {
        if self.has_sack {
            self.sacked.size_within(self.unacknowledged..self.next)
        } else {
            (self.duplicates * self.segment_bytes) as u64
        }
    }

    fn send(&mut self, turn: Turn, batch: &mut PacketBatch, now: Instant) {
        self.active_at = now;
        match turn {
            Turn::Reset(sequence) => {
                self.emit(batch, sequence, TcpControl::Rst, [&[], &[]]);
                self.reset = None;
            }
            Turn::Syn => {
                self.emit(batch, self.first, TcpControl::Syn, [&[], &[]]);
                self.next = self.first + 1;
                self.round_trip.note_sent(self.next, now);
                self.keep_promise(true);
            }
            Turn::Segment { start, length } => self.send_segment(start, length, batch, now),
            Turn::Question => {
                self.must_ask = false;
                self.asked_at = now;
                self.emit(batch, self.unacknowledged - 1, TcpControl::None, [&[], &[]]);
            }
            Turn::Acknowledgement => {
                self.emit(batch, self.next, TcpControl::None, [&[], &[]]);
                self.acks_due = self.acks_due.saturating_sub(1);
                self.note_answered();
            }
        }
    }

    fn send_segment(&mut self, start: u64, length: usize, batch: &mut PacketBatch, now: Instant) {
        let bytes_end = start + length as u64;
        let is_last = bytes_end == self.data_end();
        let has_fin = is_last && self.fin.is_some();
        let control = match (has_fin, is_last) {
            (true, _) => TcpControl::Fin,
            (false, true) => TcpControl::Psh,
            (false, false) => TcpControl::None,
        };
        let payload = self.outbox.slices(distance(self.data_start(), start), length);
        self.emit(batch, start, control, payload);
        let end = bytes_end + u64::from(has_fin);
        if self.probe == Probe::Due {
            self.probe = Probe::Sent;
        }
        if start < self.next {
            if start == self.unacknowledged {
                self.filled_at = self.next;
                self.must_fill_again = false;
            }
            if start < self.lost {
                self.resent = self.resent.max(end);
            }
            self.round_trip.note_resent();
        } else {
            self.round_trip.note_sent(end, now);
        }
        self.next = self.next.max(end);
        self.last_flight = distance(self.unacknowledged, self.next);
        self.must_ask = false;
        self.allowance = self.allowance.saturating_sub(length);
        let patience = self.patience();
        self.retry_at.get_or_insert(now + patience);
        self.acks_due = 0;
        self.note_answered();
    }

    fn note_answered(&mut self) {
        self.unanswered = 0;
        self.ack_at = None;
        self.keep_promise(false);
    }

    fn keep_promise(&mut self, is_syn: bool) {
        if self.awaited > 0 {
            (_, self.promised) = self.next_window(is_syn);
        }
    }

    fn emit(
        &self,
        batch: &mut PacketBatch,
        sequence: u64,
        control: TcpControl,
        payload: [&[u8]; 2],
    ) {
        let is_syn = control == TcpControl::Syn;
        let header_bytes = if self.flow.local.is_ipv4() { 40 } else { 60 };
        let tcp = TcpRepr {
            src_port: self.flow.local.port(),
            dst_port: self.flow.remote.port(),
            control,
            seq_number: wire(sequence),
            ack_number: (self.awaited > 0).then(|| wire(self.awaited)),
            window_len: self.window_to_tell(is_syn),
            window_scale: (is_syn && self.scales).then_some(WINDOW_SHIFT),
            max_seg_size: is_syn
                .then(|| u16::try_from(self.mtu - header_bytes).unwrap_or(u16::MAX)),
            sack_permitted: is_syn && (self.has_sack || self.stage == Stage::SynSent),
            sack_ranges: self.sack_ranges(),
            timestamp: None,
            payload: &[],
        };
        let (source, destination) =
            (IpAddress::from(self.flow.local.ip()), IpAddress::from(self.flow.remote.ip()));
        let length = tcp.header_len() + payload[0].len() + payload[1].len();
        let ip = IpRepr::new(source, destination, IpProtocol::Tcp, length, 64);
        batch.push_with(ip.buffer_len(), |packet| {
            ip.emit(&mut *packet, &ChecksumCapabilities::default());
            let mut segment = TcpPacket::new_unchecked(&mut packet[ip.header_len()..]);
            tcp.emit(&mut segment, &source, &destination, &ChecksumCapabilities::ignored());
            let (first, second) = segment.payload_mut().split_at_mut(payload[0].len());
            first.copy_from_slice(payload[0]);
            second.copy_from_slice(payload[1]);
            segment.fill_checksum(&source, &destination);
        });
    }

    fn window_to_tell(&self, is_syn: bool) -> u16 {
        if self.awaited > 0 || is_syn { self.next_window(is_syn).0 } else { 0 }
    }

    /// Up to three ranges that have come behind a hole, the latest one first.
    fn sack_ranges(&self) -> [Option<(u32, u32)>; 3] {
        let mut told = [None; 3];
        if !self.has_sack || self.early.is_empty() {
            return told;
        }
        let is_latest = |range: &&Range<u64>| range.contains(&self.latest_early);
        let latest = self.early.iter().filter(is_latest);
        let others = self.early.iter().filter(|range| !is_latest(range));
        let low = |number| wire(number).0.cast_unsigned();
        for (place, range) in told.iter_mut().zip(latest.chain(others)) {
            *place = Some((low(range.start), low(range.end)));
        }
        told
    }
}
