//! One TCP connection as a state machine: segments in, segments out, bytes of a program, and `now`.
//!
//! Sequence numbers are counted on in 64 bits, so that they compare as numbers; only the wire knows 32 of them.
//! Buffers hold what is in them and little more: a connection without traffic has none.
//!
//! Source: RFC 9293 (TCP), RFC 7323 (window scale), RFC 2018 and RFC 6675 (selective acknowledgements and what to do
//! with them), RFC 6582 (without them), RFC 5961 (resets).

mod cubic;
mod ranges;
mod receive;
mod ring;
mod rtt;
mod transmit;

use std::io;
use std::task::Waker;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{TcpRepr, TcpSeqNumber};

use crate::memory::{BUFFER_BYTES_MIN, BufferMemory};
use crate::packet::Flow;
use crate::time_wait::Ends;
use cubic::Cubic;
use ranges::Ranges;
use ring::Ring;
use rtt::RoundTrip;

/// A silent connection asks this often whether its peer still is.
const KEEP_ALIVE: Duration = Duration::from_secs(30 * 60);

/// A silent connection whose peer answers nothing for so long is over: four questions went unanswered. As long as
/// Linux and gVisor wait.
const IDLE_TIMEOUT: Duration = Duration::from_secs(130 * 60);

/// A connection is over when the peer says nothing for so long while something waits for it. As long as Linux
/// retransmits.
const STALL_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// A connection in which nothing is, and has not been for so long, gives its buffers back.
const TRIM_AFTER: Duration = Duration::from_secs(1);

/// Windows are told in steps of `1 << WINDOW_SHIFT` bytes, so that they can be as large as any buffer.
const WINDOW_SHIFT: u8 = 8;

/// The largest buffer that such windows can tell.
pub(crate) const BUFFER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The least that a segment may be made to carry (Linux's figure): a peer that asks for less wants to cost us.
const SEGMENT_BYTES_MIN: usize = 48;

/// What a peer that says nothing takes in a segment (RFC 9293, 3.7.1).
const SEGMENT_BYTES_DEFAULT: usize = 536;

/// Added to the first number, so that none before it is negative.
const SEQUENCE_BASE: u64 = 1 << 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A SYN was sent, or will be.
    SynSent,
    /// A SYN has come, and its acknowledgement was sent, or will be.
    SynReceived,
    Open,
    /// Nothing is exchanged any more, but for a last reset.
    Closed,
}

/// Whether the last segment was sent again, so that the peer says what is missing before it (RFC 8985, 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    Unsent,
    Due,
    Sent,
}

/// What a connection can still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Something may be sent then, or now when that is past.
    At(Instant),
    /// Nothing more will be sent. If its flow must rest, the peer might not know yet.
    Over { must_rest: bool },
}

/// A TCP connection.
#[derive(Debug)]
pub(crate) struct Tcp {
    flow: Flow,
    stage: Stage,
    failure: Option<io::ErrorKind>,
    /// The number of a reset that is to be sent.
    reset: Option<u64>,
    /// Longest packet.
    mtu: usize,
    /// Most bytes in a segment that is sent.
    segment_bytes: usize,

    /// The number of the SYN that is sent.
    first: u64,
    /// The first number that is not acknowledged.
    unacknowledged: u64,
    /// The number behind all that was sent.
    next: u64,
    /// What the peer takes: numbers below this, as it said in `edge_from`, sequence and acknowledgement number.
    edge: u64,
    edge_from: (u64, u64),
    /// The largest window that the peer has told.
    window_max: u64,
    peer_shift: u8,
    /// What was written, from the first byte that is not acknowledged.
    outbox: Ring,
    outbox_max: usize,
    /// The number of the FIN, once there is to be one.
    fin: Option<u64>,
    /// What has come behind a hole, as the peer says.
    sacked: Ranges,
    has_sack: bool,
    /// What is below this and not in `sacked` was lost; below `resent` it was sent again.
    lost: u64,
    resent: u64,
    /// What was sent when the first hole was filled for the last time: what has come of later bytes tells that the
    /// filling was lost as well.
    filled_at: u64,
    must_fill_again: bool,
    /// What was sent when a loss was found, and whether that was by acknowledgements: until that much has come, no
    /// other one counts.
    recovery: Option<(u64, bool)>,
    duplicates: usize,
    /// Bytes that may be sent in a recovery: about as many as arrive, so that it makes no burst (RFC 6937).
    allowance: usize,
    cubic: Cubic,
    round_trip: RoundTrip,
    retry_at: Option<Instant>,
    probe: Probe,
    /// Whether the peer is to be asked for its window.
    must_ask: bool,
    asked_at: Instant,

    /// The next number that is to come.
    awaited: u64,
    /// What was promised to be taken: numbers below this.
    promised: u64,
    scales: bool,
    inbox: Ring,
    inbox_max: usize,
    early: Ranges,
    /// Where the segment was that came last behind a hole.
    latest_early: u64,
    /// The number of the peer's FIN, once it has said so.
    peer_fin: Option<u64>,
    /// Whether the peer's FIN came before the own one was sent.
    peer_ended_first: bool,
    /// Acknowledgements to be sent at once.
    acks_due: u8,
    /// Segments since the last acknowledgement.
    unanswered: u8,
    /// Bytes that were on their way when a segment was last sent.
    last_flight: usize,
    ack_at: Option<Instant>,
    /// When another answer to nonsense may be sent.
    challenge_at: Instant,
    /// A promise, and when it was made: how fast the peer uses it tells whether it would use more.
    window_mark: (u64, Instant),
    wants_inbox: bool,

    heard_at: Instant,
    /// Since when something waits for the peer.
    waits_since: Instant,
    active_at: Instant,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Tcp {
    /// A connection that is to be opened; `seed` is random.
    pub(crate) fn connect(flow: Flow, seed: u32, mtu: usize, now: Instant) -> Self {
        let header_bytes = if flow.local.is_ipv4() { 40 } else { 60 };
        let first = SEQUENCE_BASE + u64::from(seed);
        let segment_bytes = mtu - header_bytes;
        Self {
            flow,
            stage: Stage::SynSent,
            failure: None,
            reset: None,
            mtu,
            segment_bytes,
            first,
            unacknowledged: first,
            next: first,
            edge: first,
            edge_from: (0, 0),
            window_max: 0,
            peer_shift: 0,
            outbox: Ring::default(),
            outbox_max: BUFFER_BYTES_MIN,
            fin: None,
            sacked: Ranges::default(),
            has_sack: false,
            lost: first,
            resent: first,
            filled_at: first,
            must_fill_again: false,
            recovery: None,
            duplicates: 0,
            allowance: 0,
            cubic: Cubic::new(segment_bytes),
            round_trip: RoundTrip::default(),
            retry_at: None,
            probe: Probe::Unsent,
            must_ask: false,
            asked_at: now,
            awaited: 0,
            promised: 0,
            scales: true,
            inbox: Ring::default(),
            inbox_max: BUFFER_BYTES_MIN,
            early: Ranges::default(),
            latest_early: 0,
            peer_fin: None,
            peer_ended_first: false,
            acks_due: 0,
            unanswered: 0,
            last_flight: 0,
            ack_at: None,
            challenge_at: now,
            window_mark: (0, now),
            wants_inbox: false,
            heard_at: now,
            waits_since: now,
            active_at: now,
            reader: None,
            writer: None,
        }
    }

    /// A connection that a peer opens with this SYN.
    pub(crate) fn accept(
        flow: Flow,
        syn: &TcpRepr<'_>,
        seed: u32,
        mtu: usize,
        now: Instant,
    ) -> Self {
        let mut tcp = Self::connect(flow, seed, mtu, now);
        tcp.take_syn(syn, now);
        tcp.stage = Stage::SynReceived;
        tcp
    }

    pub(crate) fn is_established(&self) -> bool {
        self.stage == Stage::Open
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    pub(crate) fn failure(&self) -> Option<io::ErrorKind> {
        self.failure
    }

    /// Whether the peer has all that was written, and the end of it.
    pub(crate) fn has_delivered_all(&self) -> bool {
        self.fin.is_some_and(|fin| self.unacknowledged > fin)
    }

    /// Where it has stopped, once it has.
    pub(crate) fn ends(&self) -> Ends {
        Ends { sent: wire(self.next), received: wire(self.awaited) }
    }

    /// Bytes to be read.
    pub(crate) fn unread(&self) -> usize {
        self.inbox.len()
    }

    /// Whether nothing will come any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.peer_fin.is_some_and(|fin| self.awaited > fin) || self.stage == Stage::Closed
    }

    /// Reads into `fill`, which is given two parts of what is there, and says how many bytes it took.
    pub(crate) fn read(&mut self, fill: impl FnOnce([&[u8]; 2]) -> usize) -> usize {
        let taken = fill(self.inbox.slices(0, self.inbox.len()));
        self.inbox.consume(taken);
        if taken > 0 && self.stage == Stage::Open && !self.has_ended() {
            let gained = self.promise().saturating_sub(self.promised);
            let is_much = gained >= (self.inbox_max / 2) as u64;
            if is_much {
                self.acks_due = self.acks_due.max(1);
            }
        }
        taken
    }

    pub(crate) fn set_reader(&mut self, waker: &Waker) {
        self.reader = Some(waker.clone());
    }

    pub(crate) fn set_writer(&mut self, waker: &Waker) {
        self.writer = Some(waker.clone());
    }

    /// Takes as many bytes as there is room for; returns how many.
    pub(crate) fn write(&mut self, bytes: &[u8], now: Instant) -> usize {
        let length = bytes.len().min(self.outbox_max.saturating_sub(self.outbox.len()));
        self.begin_waiting(now);
        self.outbox.push(&bytes[..length]);
        self.arm(now);
        length
    }

    /// Lets a FIN follow what was written.
    pub(crate) fn shut_down(&mut self, now: Instant) {
        match self.stage {
            Stage::SynSent => self.stage = Stage::Closed,
            Stage::SynReceived | Stage::Open => {
                self.begin_waiting(now);
                self.fin.get_or_insert(self.data_start() + self.outbox.len() as u64);
                self.arm(now);
            }
            Stage::Closed => {}
        }
    }

    /// Ends it at once; the peer is told by a reset.
    pub(crate) fn abort(&mut self, failure: Option<io::ErrorKind>) {
        if self.stage == Stage::SynReceived || (self.stage == Stage::Open && !self.is_done()) {
            self.reset = Some(self.next);
        }
        self.close(failure);
    }

    fn close(&mut self, failure: Option<io::ErrorKind>) {
        if self.stage != Stage::Closed {
            self.stage = Stage::Closed;
            self.failure = self.failure.or(failure);
        }
        self.outbox.release();
        self.wake();
    }

    pub(crate) fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    /// What it can still do.
    pub(crate) fn outlook(&self, now: Instant) -> Outlook {
        if self.has_something_to_send(now) {
            Outlook::At(now)
        } else if self.stage == Stage::Closed {
            Outlook::Over { must_rest: false }
        } else if self.is_done() {
            Outlook::Over { must_rest: !self.peer_ended_first }
        } else {
            Outlook::At(self.next_timer())
        }
    }

    /// Grows and shrinks its buffers by need, as far as there is memory, and at most to `most` bytes each.
    pub(crate) fn adapt(&mut self, memory: &mut BufferMemory, most: usize, now: Instant) {
        let most = most.min(BUFFER_BYTES_MAX);
        let is_full = self.outbox.len() >= self.outbox_max;
        if is_full && self.cubic.window() * 2 > self.outbox_max && self.outbox_max < most {
            let more = self.outbox_max.min(most - self.outbox_max);
            if memory.take(more) {
                self.outbox_max += more;
                self.writer.take().into_iter().for_each(Waker::wake);
            }
        }
        if std::mem::take(&mut self.wants_inbox) && self.scales && self.inbox_max < most {
            let more = self.inbox_max.min(most - self.inbox_max);
            if memory.take(more) {
                self.inbox_max += more;
                // The peer shall know at once.
                self.acks_due = self.acks_due.max(1);
            }
        }
        if self.trims_at().is_some_and(|at| at <= now) {
            self.outbox.release();
            self.inbox.release();
            memory.give_back(self.outbox_max - BUFFER_BYTES_MIN);
            self.outbox_max = BUFFER_BYTES_MIN;
        }
    }

    /// Gives back what its buffers may take.
    pub(crate) fn give_back(&self, memory: &mut BufferMemory) {
        memory.give_back(self.outbox_max + self.inbox_max - 2 * BUFFER_BYTES_MIN);
    }

    /// When it gives its buffers back; the promise to the peer stays, and with it what that may take.
    fn trims_at(&self) -> Option<Instant> {
        let has_memory = self.outbox.capacity() + self.inbox.capacity() > 0;
        let is_empty = self.outbox.len() + self.inbox.len() == 0 && self.early.is_empty();
        (has_memory && is_empty).then(|| self.active_at + TRIM_AFTER)
    }

    /// Whether both directions have ended and the peer knows of ours.
    fn is_done(&self) -> bool {
        self.stage == Stage::Open && self.has_ended() && self.has_delivered_all()
    }

    /// Whether a loss is being mended that acknowledgements have told of.
    fn is_recovering(&self) -> bool {
        matches!(self.recovery, Some((_, true)))
    }

    /// The number of the first byte in the outbox.
    fn data_start(&self) -> u64 {
        self.unacknowledged.max(self.first + 1)
    }

    /// The number behind all that was written.
    fn data_end(&self) -> u64 {
        self.fin.unwrap_or_else(|| self.data_start() + self.outbox.len() as u64)
    }

    /// Whether something was sent, or is to be, that the peer has not acknowledged.
    fn is_waiting(&self) -> bool {
        self.unacknowledged < self.next
            || self.data_end() + u64::from(self.fin.is_some()) > self.next
    }

    fn begin_waiting(&mut self, now: Instant) {
        if !self.is_waiting() {
            self.waits_since = now;
        }
    }

    /// The reader's share of numbers: what could be promised to the peer.
    fn promise(&self) -> u64 {
        self.promised.max(self.awaited + (self.inbox_max.saturating_sub(self.inbox.len())) as u64)
    }
}

/// The number that `wire` stands for, near a known one.
fn expand(wire: TcpSeqNumber, near: u64) -> u64 {
    let distance = wire.0.cast_unsigned().wrapping_sub(low_bits(near)).cast_signed();
    near.saturating_add_signed(i64::from(distance))
}

/// The number as it is on the wire.
fn wire(number: u64) -> TcpSeqNumber {
    TcpSeqNumber(low_bits(number).cast_signed())
}

fn low_bits(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).expect("invariant: 32 bits are left")
}

/// The bytes between two numbers.
fn distance(from: u64, to: u64) -> usize {
    usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
