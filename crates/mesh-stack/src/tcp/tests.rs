//! Two connections joined by a line with latency, and what a hostile or a lossy one does to them.

use std::collections::VecDeque;
use std::net::SocketAddr;

use smoltcp::wire::{TcpControl, TcpRepr};

use super::*;
use crate::batch::PacketBatch;
use crate::packet::{self, Incoming};

const MTU: usize = 1280;

/// Bytes in a full segment.
const FULL: usize = MTU - 40;

/// What happens to a segment on its way: `true` if it arrives.
type Line<'l> = &'l mut dyn FnMut(usize, &TcpRepr<'_>) -> bool;

/// Two ends, each the peer of the other.
struct Pair {
    ends: [Tcp; 2],
    /// Packets from each end, with the time at which they arrive.
    under_way: [VecDeque<(Instant, Vec<u8>)>; 2],
    now: Instant,
    latency: Duration,
    memory: BufferMemory,
}

fn flow(local: u8, remote: u8) -> Flow {
    let end = |last| SocketAddr::from(([100, 64, 0, last], 1000 + u16::from(last)));
    Flow { local: end(local), remote: end(remote) }
}

fn everything(_: usize, _: &TcpRepr<'_>) -> bool {
    true
}

impl Pair {
    /// One end has sent its SYN to the other one. `seeds` are their first numbers.
    fn connecting(seeds: [u32; 2], latency: u64) -> Self {
        let now = Instant::from_millis(1000);
        let mut caller = Tcp::connect(flow(1, 2), seeds[0], MTU, now);
        let mut batch = PacketBatch::new();
        assert!(caller.poll_packet(&mut batch, now));
        let syn = batch.packets().next().expect("a SYN").to_vec();
        let other = Tcp::accept(flow(2, 1), &segment_of(&syn), seeds[1], MTU, now);
        Self::new([caller, other], now, latency)
    }

    fn new(ends: [Tcp; 2], now: Instant, latency: u64) -> Self {
        Self {
            ends,
            under_way: [VecDeque::new(), VecDeque::new()],
            now,
            latency: Duration::from_millis(latency),
            memory: BufferMemory::default(),
        }
    }

    fn open(seeds: [u32; 2], latency: u64) -> Self {
        let mut pair = Self::connecting(seeds, latency);
        pair.run(4 * latency + 2, &mut everything);
        assert!(pair.ends.iter().all(Tcp::is_established));
        pair
    }

    /// Lets time pass, in milliseconds; returns how many segments were sent.
    fn run(&mut self, millis: u64, line: Line<'_>) -> usize {
        let mut count = 0;
        for _ in 0..millis {
            for end in [0, 1] {
                count += self.send(end, line);
            }
            self.now += Duration::from_millis(1);
            for end in [0, 1] {
                while let Some((_, packet)) =
                    self.under_way[1 - end].pop_front_if(|(at, _)| *at <= self.now)
                {
                    self.ends[end].handle(&segment_of(&packet), self.now);
                }
                self.ends[end].adapt(&mut self.memory, 1 << 20, self.now);
            }
        }
        count
    }

    fn send(&mut self, end: usize, line: Line<'_>) -> usize {
        let mut batch = PacketBatch::new();
        while self.ends[end].poll_packet(&mut batch, self.now) {
            assert!(batch.len() < 5000, "it sends without end");
        }
        for packet in batch.packets() {
            if line(end, &segment_of(packet)) {
                self.under_way[end].push_back((self.now + self.latency, packet.to_vec()));
            }
        }
        batch.len()
    }

    fn read(&mut self, end: usize, most: usize) -> usize {
        self.ends[end].read(|parts| most.min(parts[0].len() + parts[1].len()))
    }

    /// Sends `length` bytes from one end to the other, which reads at once; returns how long it takes.
    fn transfer(&mut self, from: usize, length: usize, line: Line<'_>) -> Duration {
        let begun_at = self.now;
        let bytes: Vec<_> = (0..length).map(|index| (index / 7).to_le_bytes()[0]).collect();
        let (mut written, mut received) = (0, Vec::new());
        while received.len() < length {
            written += self.ends[from].write(&bytes[written..], self.now);
            self.run(1, line);
            self.ends[1 - from].read(|parts| {
                received.extend_from_slice(&parts.concat());
                parts[0].len() + parts[1].len()
            });
            assert!(self.now - begun_at < Duration::from_secs(600), "it hangs");
        }
        assert!(received == bytes);
        self.now - begun_at
    }
}

fn segment_of(packet: &[u8]) -> TcpRepr<'_> {
    let Some(Incoming::Tcp(segment)) = packet::parse(packet) else { panic!("no segment") };
    segment.tcp
}

/// A segment of the peer of `tcp`, `offset` from where it is.
fn bare(tcp: &Tcp, control: TcpControl, offset: i64, acknowledges: i64) -> TcpRepr<'static> {
    TcpRepr {
        src_port: tcp.flow.remote.port(),
        dst_port: tcp.flow.local.port(),
        control,
        seq_number: wire(tcp.awaited.saturating_add_signed(offset)),
        ack_number: Some(wire(tcp.next.saturating_add_signed(acknowledges))),
        window_len: 100,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    }
}

#[test]
fn numbers_may_wrap_at_both_ends() {
    for seeds in [[u32::MAX; 2], [u32::MAX - 5000, 1 << 31], [(1 << 31) - 1, u32::MAX - 100_000]] {
        let mut pair = Pair::open(seeds, 2);
        pair.transfer(0, 300_000, &mut everything);
        pair.transfer(1, 300_000, &mut everything);
    }
}

#[test]
fn both_may_call_at_once() {
    let now = Instant::from_millis(1000);
    let ends = [Tcp::connect(flow(1, 2), 1, MTU, now), Tcp::connect(flow(2, 1), 2, MTU, now)];
    let mut pair = Pair::new(ends, now, 5);
    pair.run(30, &mut everything);
    assert!(pair.ends.iter().all(Tcp::is_established));
    assert!(pair.run(100, &mut everything) <= 2, "they are silent");
    pair.transfer(0, 10_000, &mut everything);
    pair.transfer(1, 10_000, &mut everything);
}

#[test]
fn both_may_end_at_once_or_one_after_the_other() {
    for pause in [0, 3, 50] {
        let mut pair = Pair::open([1, 2], 5);
        let now = pair.now;
        pair.ends[0].shut_down(now);
        pair.run(pause, &mut everything);
        let has_heard = pair.ends[1].has_ended();
        let now = pair.now;
        pair.ends[1].shut_down(now);
        pair.run(100, &mut everything);
        let rests = pair.ends.each_ref().map(|end| match end.outlook(pair.now) {
            Outlook::Over { must_rest } => must_rest,
            Outlook::At(at) => panic!("it waits until {at}"),
        });
        assert_eq!(rests, [true, !has_heard]);
    }
}

#[test]
fn any_lost_segment_of_a_handshake_is_sent_again() {
    for lost in 0..4 {
        let mut pair = Pair::connecting([1, 2], 5);
        let mut count = 0;
        pair.run(5000, &mut |_, _| {
            count += 1;
            count != lost
        });
        assert!(pair.ends.iter().all(Tcp::is_established), "without {lost}");
        pair.transfer(1, 10_000, &mut everything);
    }
}

#[test]
fn peer_that_never_reads_gets_its_window_and_questions_ever_more_seldom() {
    let mut pair = Pair::open([1, 2], 5);
    let now = pair.now;
    let bytes = vec![7; 200_000];
    let written = pair.ends[0].write(&bytes, now);
    assert_eq!(written, BUFFER_BYTES_MIN);
    pair.run(1000, &mut everything);
    let now = pair.now;
    pair.ends[0].write(&bytes, now);
    pair.run(1000, &mut everything);
    let unread = pair.ends[1].unread();
    assert!((BUFFER_BYTES_MIN - FULL..=BUFFER_BYTES_MIN).contains(&unread), "{unread}");
    let first = pair.run(10_000, &mut everything);
    let later = pair.run(60_000, &mut everything);
    assert!(first > 2 && later > 2 && later < 3 * first, "{first} and {later}");
    // The news about room gets lost, and a question brings it to light.
    pair.read(1, BUFFER_BYTES_MIN);
    pair.run(1, &mut |end, _| end == 0);
    pair.run(61_000, &mut everything);
    assert!(pair.ends[1].unread() > 0);
}

#[test]
fn slow_reader_is_sent_no_silly_segments() {
    let mut pair = Pair::open([1, 2], 1);
    let mut lengths = Vec::new();
    for _ in 0..20_000 {
        let now = pair.now;
        pair.ends[0].write(&[7; 5000], now);
        pair.run(1, &mut |end, segment| {
            if end == 0 && !segment.payload.is_empty() {
                lengths.push(segment.payload.len());
            }
            true
        });
        pair.read(1, 10);
    }
    let (count, total) = (lengths.len(), lengths.iter().sum::<usize>());
    assert!(total > 150_000 && total / count > FULL / 2, "{total} in {count}");
}

#[test]
fn reset_counts_only_with_the_very_number() {
    let check = |offset, is_closed, answers| {
        let mut pair = Pair::open([1, 2], 1);
        let reset = bare(&pair.ends[0], TcpControl::Rst, offset, 0);
        let now = pair.now;
        pair.ends[0].handle(&reset, now);
        assert_eq!(pair.ends[0].is_closed(), is_closed, "{offset}");
        assert_eq!(pair.send(0, &mut everything), answers, "{offset}");
    };
    check(0, true, 0);
    check(1, false, 1);
    check(20_000, false, 1);
    check(-1, false, 0);
    check(1 << 30, false, 0);
}

#[test]
fn nonsense_is_answered_now_and_then() {
    let kinds = [(TcpControl::None, 0, 1), (TcpControl::None, -1, 0), (TcpControl::Syn, 0, 0)];
    for (control, offset, acknowledges) in kinds {
        let mut pair = Pair::open([1, 2], 1);
        let mut answers = 0;
        for _ in 0..1000 {
            let nonsense = bare(&pair.ends[0], control, offset, acknowledges);
            let now = pair.now;
            pair.ends[0].handle(&nonsense, now);
            answers += pair.send(0, &mut |_, _| false);
            pair.now += Duration::from_millis(1);
        }
        assert!((5..=10).contains(&answers), "{answers} to {control:?}");
    }
}

#[test]
fn ends_that_disagree_fall_silent() {
    let mut pair = Pair::open([1, 2], 1);
    pair.ends[0].next += 100;
    pair.ends[0].unacknowledged += 100;
    let now = pair.now;
    pair.ends[0].acks_due = 1;
    pair.ends[0].active_at = now;
    let count = pair.run(60_000, &mut everything);
    assert!(count <= 1300, "{count}");
}

/// A transfer in the middle of which one thing goes wrong; how long it takes longer than without.
fn delay(
    latency: u64,
    segments: usize,
    mut line: impl FnMut(usize, &TcpRepr<'_>) -> bool,
) -> Duration {
    let [harmed, whole] = [true, false].map(|is_harmed| {
        let mut pair = Pair::open([1, 2], latency);
        pair.transfer(0, 100_000, &mut everything);
        pair.transfer(0, segments * FULL, &mut |end, segment| !is_harmed || line(end, segment))
    });
    harmed.max(whole) - whole
}

#[test]
fn lost_segments_cost_round_trips_and_no_timeout() {
    for lost in [vec![10], vec![10, 11, 12], vec![5, 10, 20, 21, 40], vec![49], vec![48, 49, 50]] {
        let mut count = 0;
        let cost = delay(10, 50, |end, segment| {
            count += usize::from(end == 0 && !segment.payload.is_empty());
            end == 1 || segment.payload.is_empty() || !lost.contains(&count)
        });
        assert!(cost <= Duration::from_millis(130), "{lost:?}: {cost}");
    }
}

#[test]
fn repetition_that_is_lost_as_well_costs_no_timeout() {
    let (mut count, mut lost) = (0, Vec::new());
    let cost = delay(10, 500, |end, segment| {
        let is_data = end == 0 && !segment.payload.is_empty();
        count += usize::from(is_data);
        if is_data && (count == 5 || (lost.len() == 1 && lost[0] == segment.seq_number.0)) {
            lost.push(segment.seq_number.0);
            return false;
        }
        true
    });
    assert_eq!(lost.len(), 2);
    assert!(cost <= Duration::from_millis(150), "{cost}");
}

/// As a relay has one: what comes in a burst and does not fit is lost.
#[test]
fn short_queue_on_the_way_costs_little() {
    for burst in [8, 32] {
        let mut pair = Pair::open([1, 2], 1);
        let (mut count, mut sent) = (0, 0);
        let cost = pair.transfer(0, 3_000_000, &mut |end, segment| {
            if end == 1 {
                count = 0;
                return true;
            }
            sent += segment.payload.len();
            count += 1;
            count <= burst
        });
        assert!(sent < 3_300_000, "{burst}: {sent}");
        assert!(cost < Duration::from_millis(900), "{burst}: {cost}");
    }
}

#[test]
fn idle_connection_holds_no_memory() {
    let mut pair = Pair::open([1, 2], 1);
    pair.transfer(0, 2_000_000, &mut everything);
    pair.transfer(1, 2_000_000, &mut everything);
    assert!(pair.ends.iter().any(|end| end.inbox_max > BUFFER_BYTES_MIN), "they have grown");
    pair.run(3000, &mut everything);
    for end in &pair.ends {
        assert_eq!(end.outbox.capacity() + end.inbox.capacity(), 0);
        assert_eq!(end.outbox_max, BUFFER_BYTES_MIN);
    }
    pair.transfer(0, 100_000, &mut everything);
    pair.ends.iter().for_each(|end| end.give_back(&mut pair.memory));
    assert!(pair.memory.take(64 * 1024 * 1024) && !pair.memory.take(1), "all came back");
}
