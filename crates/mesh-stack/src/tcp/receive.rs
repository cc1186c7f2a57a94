//! What a segment does to a connection.

use std::io;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{TcpControl, TcpRepr};

use super::cubic::Cubic;
use super::{
    Probe, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MIN, Stage, Tcp, WINDOW_SHIFT, distance, expand,
};

/// An acknowledgement waits at most so long for something to go with.
const ACK_DELAY: Duration = Duration::from_millis(20);

/// Between two answers to segments that cannot be right, so that two ends do not go on for ever.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(100);

/// So many acknowledgements that say the same tell of a loss.
const DUPLICATES: usize = 3;

/// Most acknowledgements that are due at once: as many as tell of a loss.
const ACKS_DUE_MAX: u8 = 3;

impl Tcp {
    /// Takes a segment in, whose checksum is right.
    pub(crate) fn handle(&mut self, segment: &TcpRepr<'_>, now: Instant) {
        match self.stage {
            Stage::SynSent => self.handle_while_connecting(segment, now),
            Stage::SynReceived | Stage::Open => self.handle_in_order(segment, now),
            Stage::Closed => {}
        }
    }

    fn handle_while_connecting(&mut self, segment: &TcpRepr<'_>, now: Instant) {
        let acknowledged = segment.ack_number.map(|number| expand(number, self.first));
        let is_answer = acknowledged == Some(self.first + 1) && self.next > self.first;
        match segment.control {
            TcpControl::Rst if is_answer => self.close(Some(io::ErrorKind::ConnectionRefused)),
            TcpControl::Rst => {}
            _ if acknowledged.is_some() && !is_answer => self.reset = acknowledged,
            TcpControl::Syn => {
                self.take_syn(segment, now);
                if is_answer {
                    self.open(now);
                    self.acks_due = 1;
                } else {
                    // Both have called at once: the SYN goes out again, with an acknowledgement.
                    self.stage = Stage::SynReceived;
                    self.next = self.first;
                }
            }
            TcpControl::None | TcpControl::Psh | TcpControl::Fin => {}
        }
    }

    /// Learns what a SYN says.
    pub(super) fn take_syn(&mut self, syn: &TcpRepr<'_>, now: Instant) {
        let header_bytes = if self.flow.local.is_ipv4() { 40 } else { 60 };
        let asked = syn.max_seg_size.map_or(SEGMENT_BYTES_DEFAULT, usize::from);
        self.segment_bytes = asked.clamp(SEGMENT_BYTES_MIN, self.mtu - header_bytes);
        self.cubic = Cubic::new(self.segment_bytes);
        self.has_sack = syn.sack_permitted;
        self.scales = syn.window_scale.is_some();
        self.peer_shift = syn.window_scale.unwrap_or(0).min(14);
        self.awaited = expand(syn.seq_number, super::SEQUENCE_BASE) + 1;
        self.promised = self.awaited + self.inbox_max as u64;
        self.edge = self.first + 1 + u64::from(syn.window_len);
        self.edge_from = (self.awaited, self.first);
        self.window_max = u64::from(syn.window_len);
        self.heard_at = now;
    }

    fn open(&mut self, now: Instant) {
        self.stage = Stage::Open;
        self.unacknowledged = self.first + 1;
        self.round_trip.note_acknowledged(self.unacknowledged, now);
        self.retry_at = None;
        self.window_mark = (self.promised, now);
        self.wake();
        self.arm(now);
    }

    fn handle_in_order(&mut self, segment: &TcpRepr<'_>, now: Instant) {
        let sequence = expand(segment.seq_number, self.awaited);
        match segment.control {
            TcpControl::Rst => {
                if sequence == self.awaited {
                    self.close(Some(io::ErrorKind::ConnectionReset));
                } else if (self.awaited..self.promised).contains(&sequence) {
                    self.challenge(now);
                }
                return;
            }
            TcpControl::Syn => {
                if self.stage == Stage::SynReceived && sequence + 1 == self.awaited {
                    // Our own was lost, or both have called at once and this is the answer.
                    self.next = self.first;
                    if segment.ack_number.is_some() {
                        self.handle_acknowledgement(segment, sequence, now);
                    }
                } else {
                    self.challenge(now);
                }
                return;
            }
            TcpControl::None | TcpControl::Psh | TcpControl::Fin => {}
        }
        self.heard_at = now;
        self.active_at = now;
        let length = segment.payload.len() as u64;
        let is_new =
            sequence <= self.promised.max(self.awaited) && sequence + length >= self.awaited;
        if !is_new || (length > 0 && sequence + length == self.awaited) {
            // Old, or a question whether anybody is there.
            if length > 0 { self.owe_acknowledgement() } else { self.challenge(now) }
        }
        if sequence <= self.promised.max(self.awaited)
            && self.handle_acknowledgement(segment, sequence, now)
        {
            self.take_payload(segment, sequence, now);
        }
        self.arm(now);
    }

    /// Answers what cannot be right by what is.
    fn challenge(&mut self, now: Instant) {
        if now >= self.challenge_at {
            self.challenge_at = now + CHALLENGE_INTERVAL;
            self.owe_acknowledgement();
        }
    }

    fn owe_acknowledgement(&mut self) {
        self.acks_due = (self.acks_due + 1).min(ACKS_DUE_MAX);
    }

    /// Learns what the peer has got; whether the rest of the segment counts.
    fn handle_acknowledgement(
        &mut self,
        segment: &TcpRepr<'_>,
        sequence: u64,
        now: Instant,
    ) -> bool {
        let Some(number) = segment.ack_number else { return false };
        let acknowledged = expand(number, self.unacknowledged);
        if self.stage == Stage::SynReceived {
            if acknowledged != self.first + 1 {
                self.reset = Some(acknowledged);
                return false;
            }
            self.next = self.next.max(self.first + 1);
            self.edge_from = (sequence, acknowledged);
            self.open(now);
        }
        if acknowledged > self.next {
            self.challenge(now);
            return false;
        }
        let arrived_before = self.arrived();
        self.take_sacks(segment);
        let has_moved = self.take_window(segment, sequence, acknowledged);
        if acknowledged > self.unacknowledged {
            self.advance(acknowledged, now);
        } else if acknowledged == self.unacknowledged
            && segment.payload.is_empty()
            && segment.control != TcpControl::Fin
            && !has_moved
            && self.unacknowledged < self.next
        {
            self.duplicates += 1;
        }
        self.find_losses();
        self.allow(distance(arrived_before, self.arrived()));
        if has_moved {
            self.round_trip.note_alive();
        }
        true
    }

    /// Learns up to where the peer takes bytes; whether that has changed.
    fn take_window(&mut self, segment: &TcpRepr<'_>, sequence: u64, acknowledged: u64) -> bool {
        let is_old = (sequence, acknowledged) < self.edge_from && acknowledged <= self.edge_from.1;
        if is_old || acknowledged < self.unacknowledged {
            return false;
        }
        let window = u64::from(segment.window_len) << self.peer_shift;
        let before = std::mem::replace(&mut self.edge, acknowledged + window);
        self.edge_from = (sequence, acknowledged);
        self.window_max = self.window_max.max(window);
        self.edge != before
    }

    fn take_sacks(&mut self, segment: &TcpRepr<'_>) {
        if !self.has_sack {
            return;
        }
        for (start, end) in segment.sack_ranges.into_iter().flatten() {
            let [start, end] = [start, end].map(|number| {
                expand(smoltcp::wire::TcpSeqNumber(number.cast_signed()), self.unacknowledged)
            });
            if self.unacknowledged < start && start < end && end <= self.next {
                self.sacked.insert(start..end);
            }
        }
    }

    /// The peer has got more.
    fn advance(&mut self, acknowledged: u64, now: Instant) {
        let bytes = distance(self.data_start(), acknowledged).min(self.outbox.len());
        // A window that is not used says nothing about the way.
        let was_used = self.last_flight * 2 >= self.cubic.window();
        self.outbox.consume(bytes);
        self.unacknowledged = acknowledged;
        self.sacked.remove_below(acknowledged);
        self.duplicates = 0;
        // From here on the first hole is another one, which was filled later, if at all.
        self.filled_at = self.next;
        self.must_fill_again = false;
        self.round_trip.note_acknowledged(acknowledged, now);
        self.retry_at = None;
        self.probe = Probe::Unsent;
        match self.recovery {
            Some((bound, _)) if acknowledged >= bound => self.recovery = None,
            Some((_, true)) if !self.has_sack => {
                // What comes next was lost as well (RFC 6582).
                self.lost = self.lost.max(acknowledged + 1);
                self.resent = acknowledged;
            }
            Some(_) | None => {}
        }
        if was_used && !self.is_recovering() {
            let round_trip = self.round_trip.smoothed().unwrap_or(Duration::ZERO);
            let most = 2 * super::BUFFER_BYTES_MAX;
            self.cubic.note_acknowledged(bytes, round_trip, now, most);
        }
        if self.outbox.len() < self.outbox_max {
            self.writer.take().into_iter().for_each(std::task::Waker::wake);
        }
    }

    /// A measure of what has arrived at the peer.
    fn arrived(&self) -> u64 {
        self.unacknowledged + self.arrived_early()
    }

    /// Lets as much be sent in a recovery as has arrived, or a little less while there is too much under way.
    fn allow(&mut self, arrived: usize) {
        let (under_way, window) = (self.under_way(), self.cubic.window());
        self.allowance = if !self.is_recovering() {
            0
        } else if under_way > window {
            self.allowance + arrived * 7 / 10
        } else {
            (self.allowance + arrived + self.segment_bytes).min(window - under_way)
        };
    }

    /// Finds what was lost by what has come that was sent later.
    fn find_losses(&mut self) {
        if self.has_sack {
            let (mut above, mut count) = (0, 0);
            for range in self.sacked.iter().rev() {
                above += range.end - range.start;
                count += 1;
                if above > 2 * self.segment_bytes as u64 || count >= DUPLICATES {
                    self.lost = self.lost.max(range.start);
                    break;
                }
            }
            // All before a probe was sent two round trips ago.
            let latest = self.sacked.iter().next_back().filter(|_| self.probe == Probe::Sent);
            self.lost = latest.map_or(self.lost, |range| self.lost.max(range.start));
        } else if self.duplicates >= DUPLICATES && self.recovery.is_none() {
            self.lost = self.lost.max(self.unacknowledged + 1);
        }
        if self.recovery.is_some() && self.resent > self.unacknowledged {
            let later = self.sacked.size_within(self.filled_at..self.next);
            self.must_fill_again |= later > 2 * self.segment_bytes as u64;
        }
        if self.recovery.is_none()
            && self.lost > self.unacknowledged
            && self.unacknowledged < self.next
        {
            self.recovery = Some((self.next, true));
            self.resent = self.resent.max(self.unacknowledged);
            self.cubic.note_loss();
        }
    }

    fn take_payload(&mut self, segment: &TcpRepr<'_>, sequence: u64, now: Instant) {
        let skipped = distance(sequence, self.awaited).min(segment.payload.len());
        let start = sequence + skipped as u64;
        let payload = &segment.payload[skipped..];
        let payload = &payload[..payload.len().min(distance(start, self.promised))];
        let end = start + payload.len() as u64;
        let is_whole = end == sequence + segment.payload.len() as u64;
        if !is_whole {
            self.owe_acknowledgement();
        }
        if segment.control == TcpControl::Fin && is_whole && end >= self.awaited {
            self.peer_fin.get_or_insert(end);
        }
        if self.peer_fin.is_some_and(|fin| end > fin) {
            return;
        }
        if !payload.is_empty() {
            self.store(payload, start, now);
        }
        if self.peer_fin == Some(self.awaited) {
            self.awaited += 1;
            self.peer_ended_first = self.fin.is_none_or(|fin| self.next <= fin);
            self.acks_due = self.acks_due.max(1);
            self.reader.take().into_iter().for_each(std::task::Waker::wake);
        }
    }

    fn store(&mut self, payload: &[u8], start: u64, now: Instant) {
        let end = start + payload.len() as u64;
        let is_in_order = start == self.awaited;
        if !is_in_order && !self.early.insert(start..end) {
            return self.owe_acknowledgement();
        }
        self.inbox.write_at(self.inbox.len() + distance(self.awaited, start), payload);
        if !is_in_order {
            self.latest_early = start;
            self.owe_acknowledgement();
            return;
        }
        let had_holes = !self.early.is_empty();
        let awaited = if had_holes { self.early.first_gap(end).0 } else { end };
        self.inbox.extend(distance(self.awaited, awaited));
        self.awaited = awaited;
        self.early.remove_below(awaited);
        self.unanswered = self.unanswered.saturating_add(1);
        if had_holes || self.unanswered >= 2 {
            self.acks_due = self.acks_due.max(1);
        }
        self.ack_at.get_or_insert(now + ACK_DELAY);
        self.weigh_window(now);
        self.reader.take().into_iter().for_each(std::task::Waker::wake);
    }

    /// Wants a larger inbox when the peer has used up a promise as fast as it could, and the program keeps up.
    fn weigh_window(&mut self, now: Instant) {
        let (promised, at) = self.window_mark;
        if self.awaited < promised {
            return;
        }
        let round_trip = self.round_trip.smoothed().unwrap_or(Duration::ZERO);
        let is_fast = now - at <= round_trip * 2 + Duration::from_millis(1);
        self.wants_inbox |= is_fast && self.inbox.len() <= self.inbox_max / 2;
        self.window_mark = (self.promised, now);
    }

    /// The window as it is told, and the promise that goes with it.
    pub(super) fn next_window(&self, is_syn: bool) -> (u16, u64) {
        let gained = self.promise().saturating_sub(self.promised);
        // In small steps it would invite small segments (RFC 9293, 3.8.6.2.2).
        let is_worth_it = gained >= self.segment_bytes.min(self.inbox_max / 2) as u64;
        let promised = if is_worth_it { self.promise() } else { self.promised };
        let window = promised.saturating_sub(self.awaited);
        let shift = if self.scales && !is_syn { WINDOW_SHIFT } else { 0 };
        let told = u16::try_from(window >> shift).unwrap_or(u16::MAX);
        (told, self.promised.max(self.awaited + (u64::from(told) << shift)))
    }
}
