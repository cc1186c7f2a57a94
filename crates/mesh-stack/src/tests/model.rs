//! A connection over a bad line against what it must be: two queues of bytes.

use std::collections::VecDeque;
use std::task::{Poll, Waker};

use proptest::collection::vec;
use proptest::prelude::*;
use smoltcp::time::{Duration as StackDuration, Instant as StackInstant};
use tokio::io::ReadBuf;

use super::{A4, B4, Dice, at};
use crate::connections::ConnectionId;
use crate::inner::Inner;
use crate::listen::Network;
use crate::{Config, PacketBatch};

/// One end of the connection.
struct End {
    inner: Inner,
    id: ConnectionId,
    /// What was written here and not read there.
    written: VecDeque<u8>,
    is_shut_down: bool,
    /// Packets from here that have not arrived.
    under_way: VecDeque<Vec<u8>>,
}

/// Both ends, each the peer of the other.
struct Line {
    ends: [End; 2],
    now: StackInstant,
    dice: Dice,
    next_byte: u8,
}

#[derive(Debug, Clone)]
enum Step {
    Write(usize, usize),
    Read(usize, usize),
    ShutDown(usize),
    /// Packets of one end arrive; one in so many is lost, or comes behind the next ones.
    Carry(usize, usize),
    Wait(u64),
}

impl Line {
    fn new(seed: u64) -> Self {
        let now = StackInstant::from_millis(1000);
        let [mut client, mut server] = [A4, B4].map(|ip| {
            let addresses = vec![at(ip, 0).ip()];
            Inner::new(&Config { addresses, ..Config::default() }, seed, now)
        });
        let listener = server.listen(Network::Tcp, None, 80).expect("it is free");
        let (id, _) = client.connect(None, at(B4, 80), now).expect("a port is free");
        for _ in 0..2 {
            carry_all(&mut client, &mut server, now);
            carry_all(&mut server, &mut client, now);
        }
        let accepted = server.poll_accept(listener, Waker::noop());
        let Poll::Ready(Ok((server_id, _))) = accepted else { panic!("nobody came") };
        let ends = [(client, id), (server, server_id)].map(|(inner, id)| End {
            inner,
            id,
            written: VecDeque::new(),
            is_shut_down: false,
            under_way: VecDeque::new(),
        });
        Self { ends, now, dice: Dice(seed), next_byte: 0 }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Write(end, length) => self.write(end, length),
            Step::Read(end, length) => drop(self.read(end, length)),
            Step::ShutDown(end) => {
                self.ends[end].is_shut_down = true;
                let id = self.ends[end].id;
                self.ends[end].inner.shut_down(id, self.now);
            }
            Step::Carry(end, hurt_one_in) => self.carry(end, hurt_one_in),
            Step::Wait(millis) => self.now += StackDuration::from_millis(millis),
        }
    }

    fn write(&mut self, index: usize, length: usize) {
        let end = &mut self.ends[index];
        let first = self.next_byte;
        let bytes: Vec<_> =
            (0..length).map(|offset| (offset / 3).to_le_bytes()[0].wrapping_add(first)).collect();
        let result = end.inner.poll_write(end.id, &bytes, Waker::noop(), self.now);
        if let Poll::Ready(Ok(written)) = result {
            assert!(!end.is_shut_down || length == 0);
            end.written.extend(&bytes[..written]);
        } else {
            assert!(end.is_shut_down || result.is_pending(), "{result:?}");
        }
        self.next_byte = self.next_byte.wrapping_add(97);
    }

    /// Reads what must be there; whether it was the end.
    fn read(&mut self, index: usize, length: usize) -> bool {
        let mut bytes = vec![0; length];
        let mut buffer = ReadBuf::new(&mut bytes);
        let end = &mut self.ends[index];
        let read = end.inner.poll_read(end.id, &mut buffer, Waker::noop(), self.now);
        let peer = &mut self.ends[1 - index];
        let Poll::Ready(read) = read else { return false };
        read.expect("nothing fails");
        let expected: Vec<_> = peer.written.drain(..buffer.filled().len()).collect();
        assert!(buffer.filled() == expected, "other bytes than were written");
        let is_end = buffer.filled().is_empty() && length > 0;
        assert!(!is_end || (peer.is_shut_down && peer.written.is_empty()), "it ended too early");
        is_end
    }

    fn carry(&mut self, index: usize, hurt_one_in: usize) {
        let mut batch = PacketBatch::new();
        self.ends[index].inner.fill(&mut batch, self.now);
        let packets = batch.packets().map(<[u8]>::to_vec);
        self.ends[index].under_way.extend(packets);
        let mut late = VecDeque::new();
        while let Some(packet) = self.ends[index].under_way.pop_front() {
            if self.dice.hits_one_in(hurt_one_in) {
                continue;
            }
            if self.dice.hits_one_in(hurt_one_in) {
                late.push_back(packet);
                continue;
            }
            self.ends[1 - index].inner.handle_packet(&packet, self.now);
        }
        self.ends[index].under_way = late;
        self.ends[1 - index].inner.settle_touched(self.now);
    }

    /// Everything arrives once the line is good, then both ends, and nothing is left.
    fn finish(&mut self) {
        self.carry_until(|line, _| line.ends.iter().all(|end| end.written.is_empty()));
        for end in [0, 1] {
            if !self.ends[end].is_shut_down {
                self.step(&Step::ShutDown(end));
            }
        }
        self.carry_until(|_, has_ended| has_ended == [true; 2]);
        self.let_go();
    }

    fn carry_until(&mut self, is_done: impl Fn(&Self, [bool; 2]) -> bool) {
        let mut has_ended = [false; 2];
        for _ in 0..3000 {
            for end in [0, 1] {
                self.carry(end, 0);
                has_ended[end] |= self.read(end, 1 << 20);
            }
            if is_done(self, has_ended) {
                return;
            }
            self.now += StackDuration::from_millis(100);
        }
        panic!("not all arrived");
    }

    fn let_go(&mut self) {
        for end in &mut self.ends {
            end.inner.let_go(end.id, self.now);
        }
        for _ in 0..12 {
            self.now += StackDuration::from_secs(10);
            self.carry(0, 0);
            self.carry(1, 0);
        }
        assert!(self.ends.iter().all(|end| end.inner.connection_count() == 0));
    }
}

fn carry_all(from: &mut Inner, to: &mut Inner, now: StackInstant) {
    let mut batch = PacketBatch::new();
    from.fill(&mut batch, now);
    batch.packets().for_each(|packet| to.handle_packet(packet, now));
    to.settle_touched(now);
}

fn any_step() -> impl Strategy<Value = Step> {
    let end = || 0..2_usize;
    let length = || prop_oneof![4 => 0..3000_usize, 1 => 0..400_000_usize];
    prop_oneof![
        10 => (end(), length()).prop_map(|(end, length)| Step::Write(end, length)),
        10 => (end(), length()).prop_map(|(end, length)| Step::Read(end, length)),
        1 => end().prop_map(Step::ShutDown),
        20 => (end(), prop_oneof![Just(0), 2..50_usize])
            .prop_map(|(end, hurt_one_in)| Step::Carry(end, hurt_one_in)),
        5 => prop_oneof![1..50_u64, 100..5000_u64].prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn reader_gets_what_the_writer_wrote(seed in any::<u64>(), steps in vec(any_step(), 0..150)) {
        let mut line = Line::new(seed);
        for step in &steps {
            line.step(step);
        }
        line.finish();
    }
}

/// Bare acknowledgements after that must bear the number behind all that was sent, or neither end hears the other.
#[test]
fn both_ends_may_retransmit_at_once() {
    let mut line = Line::new(15_212_748_316_855_043_468);
    line.write(1, 1241);
    line.carry(1, 0);
    line.write(0, 35_556);
    line.carry(0, 0);
    line.write(1, 18_878);
    line.carry(1, 3);
    line.carry(0, 0);
    line.carry(1, 0);
    line.step(&Step::Wait(1000));
    line.carry(0, 0);
    for (end, hurt_one_in) in [(1, 38), (0, 0), (1, 0), (0, 0), (1, 0), (0, 0), (1, 5), (1, 0)] {
        line.carry(end, hurt_one_in);
    }
    line.carry(0, 2);
    line.step(&Step::Wait(1000));
    line.finish();
}

/// The FIN comes with bytes that the peer has already, and three duplicate acknowledgements follow.
#[test]
fn fin_comes_again_until_it_is_acknowledged() {
    let mut line = Line::new(8_702_687_498_598_915_636);
    let answered = |line: &mut Line, hurt_one_in| {
        line.carry(0, hurt_one_in);
        line.carry(1, 0);
    };
    line.write(0, 1241);
    line.carry(0, 0);
    line.write(1, 478);
    line.carry(1, 0);
    line.write(0, 1241);
    line.write(1, 221_290);
    for hurt_one_in in [0, 0, 0, 10] {
        answered(&mut line, hurt_one_in);
    }
    line.write(0, 1241);
    for hurt_one_in in [3, 0, 0, 36, 13] {
        answered(&mut line, hurt_one_in);
    }
    line.carry(0, 0);
    line.carry(1, 3);
    line.finish();
}
