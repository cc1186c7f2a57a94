use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { packets: 1024, bytes: 1 << 20 };

fn key(number: u8) -> NodePublic {
    NodePublic::from_bytes([number; 32])
}

/// Queues a packet that says whose it is and which, of `bytes` bytes.
fn push(queue: &mut FairQueue, src: u8, number: u32, bytes: usize) -> Tally {
    queue.push(key(src), BOUNDS, [bytes, bytes], |out| {
        out.push(src);
        out.extend_from_slice(&number.to_be_bytes());
        out.resize(out.len() + bytes - 5, 0);
    })
}

/// Whose packets leave, and which, in packets of `bytes` bytes.
fn drain(queue: &mut FairQueue, bytes_max: usize, bytes: usize) -> Vec<(u8, u32)> {
    let mut out = Vec::new();
    queue.drain(&mut out, bytes_max);
    let number = |frame: &[u8]| u32::from_be_bytes(frame[1..5].try_into().expect("four bytes"));
    out.chunks(bytes).map(|frame| (frame[0], number(frame))).collect()
}

#[test]
fn who_sends_little_does_not_wait_behind_who_sends_much() {
    let mut queue = FairQueue::default();
    for number in 0..500 {
        push(&mut queue, 1, number, 1000);
    }
    for round in 0..5 {
        push(&mut queue, 2, round, 1000);
        let left = drain(&mut queue, 64 << 10, 1000);
        assert_eq!(left[0], (2, round));
        assert_eq!(left.len(), 66);
    }
}

#[test]
fn who_is_quiet_may_only_be_so_far_ahead() {
    let mut queue = FairQueue::default();
    for number in 0..500 {
        push(&mut queue, 1, number, 1000);
        push(&mut queue, 2, number, 1000);
    }
    let left = drain(&mut queue, 20_000, 1000);
    assert!(left[..4].iter().all(|(src, _)| *src == 2));
    let ahead = left.iter().filter(|(src, _)| *src == 2).count();
    assert_eq!(ahead, 10, "{left:?}");
}

#[test]
fn many_that_send_little_are_not_forgotten_while_there_is_room() {
    let mut queue = FairQueue::default();
    let mut dropped = Tally::default();
    for round in 0..3 {
        for src in 0..=u8::MAX {
            dropped += push(&mut queue, src, round, 200);
        }
    }
    assert_eq!(dropped, Tally::default());
    let left = drain(&mut queue, usize::MAX, 200);
    assert_eq!(left.len(), 3 * 256);
    for src in 0..=u8::MAX {
        let rounds = left.iter().filter(|(whose, _)| *whose == src).map(|(_, round)| *round);
        assert!(rounds.eq(0..3), "of {src}");
    }
}

#[test]
fn senders_that_come_and_go_are_forgotten() {
    let mut queue = FairQueue::default();
    for number in 0..3 * SHARES_MAX {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        queue.push(NodePublic::from_bytes(bytes), BOUNDS, [100, 100], |out| out.extend([0; 100]));
    }
    assert!(queue.shares.len() <= SHARES_MAX + 1);
    queue.drain(&mut Vec::new(), usize::MAX);
    assert!(queue.shares.is_empty() && queue.is_empty());
}

proptest! {
    /// Whatever comes and goes, each sender's packets leave in their order, and none twice.
    #[test]
    fn each_senders_packets_keep_their_order(
        steps in prop::collection::vec((1..6_u8, 1..80_usize, 0..4_usize), 1..60),
        bytes in prop_oneof![Just(100_usize), Just(1400)],
    ) {
        let (mut queue, mut last) = (FairQueue::default(), [None::<u32>; 6]);
        let mut number = 0;
        for (src, packets, parts) in steps {
            for _ in 0..packets {
                number += 1;
                push(&mut queue, src, number, bytes);
            }
            for (src, number) in drain(&mut queue, parts * 20 * bytes, bytes) {
                prop_assert!(last[usize::from(src)] < Some(number));
                last[usize::from(src)] = Some(number);
            }
        }
        while !queue.is_empty() {
            for (src, number) in drain(&mut queue, 10 * bytes, bytes) {
                prop_assert!(last[usize::from(src)] < Some(number));
                last[usize::from(src)] = Some(number);
            }
        }
    }
}
