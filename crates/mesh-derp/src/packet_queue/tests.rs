use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { packets: 40, bytes: 4000 };

/// Bytes of a frame around its packet.
const AROUND: usize = 3;

fn push(queue: &mut PacketQueue, payload: &[u8]) -> Tally {
    queue.push(BOUNDS, [AROUND + payload.len(), payload.len()], |out| {
        out.extend_from_slice(b"<->");
        out.extend_from_slice(payload);
    })
}

#[test]
fn a_whole_piece_leaves_without_a_copy() {
    let (mut queue, mut out) = (PacketQueue::default(), Vec::new());
    for _ in 0..20 {
        push(&mut queue, &[0; 100]);
    }
    let piece = queue.pieces[0].as_ptr();
    assert_eq!(queue.drain(&mut out, 1 << 20).packets, 20);
    assert_eq!(out.as_ptr(), piece);
}

/// Small packets, and now and then one of which few fit.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let size = prop_oneof![9 => 0..50_usize, 1 => Just(1500)];
    (any::<u8>(), size).prop_map(|(byte, size)| vec![byte; size])
}

#[test]
fn who_reads_nothing_costs_bounded_memory_that_is_given_back() {
    let mut queue = PacketQueue::default();
    for _ in 0..1000 {
        push(&mut queue, &[0; 1500]);
    }
    let capacity = |queue: &PacketQueue| queue.pieces.iter().map(Vec::capacity).sum::<usize>();
    assert!(capacity(&queue) <= 2 * (BOUNDS.bytes + 2 * PIECE_BYTES));
    queue.drain(&mut Vec::new(), usize::MAX);
    assert_eq!(capacity(&queue), 0);
}

proptest! {
    /// The queue of frames against a queue of packets.
    #[test]
    fn a_queue_is_the_newest_packets_in_their_order(
        rounds in prop::collection::vec(
            (prop::collection::vec(packets(), 0..100), 0..5000_usize, any::<bool>()),
            0..6,
        ),
    ) {
        let (mut queue, mut model) = (PacketQueue::default(), VecDeque::<Vec<u8>>::new());
        let waiting = |model: &VecDeque<Vec<u8>>| {
            model.iter().map(|packet| AROUND + packet.len()).sum::<usize>()
        };
        let mut came = 0;
        for (packets, bytes_max, is_behind) in rounds {
            for payload in packets {
                let mut dropped = Tally::default();
                while model.len() >= BOUNDS.packets
                    || waiting(&model) + AROUND + payload.len() > BOUNDS.bytes
                {
                    dropped.add(model.pop_front().expect("a packet fits into the bounds").len());
                }
                prop_assert_eq!(push(&mut queue, &payload), dropped);
                came += AROUND + payload.len();
                model.push_back(payload);
            }
            let before = if is_behind { b"before".to_vec() } else { Vec::new() };
            let (mut out, mut expected, mut tally) = (before.clone(), before, Tally::default());
            let left = queue.drain(&mut out, bytes_max);
            // A whole piece leaves by itself; else as many as it takes.
            let piece = if is_behind { u64::MAX } else { left.packets };
            prop_assert!(left.packets > 0 || bytes_max == 0 || model.is_empty());
            while expected.len() < bytes_max + if is_behind { 6 } else { 0 }
                && tally.packets < piece
                && let Some(payload) = model.pop_front()
            {
                expected.extend_from_slice(b"<->");
                expected.extend_from_slice(&payload);
                tally.add(payload.len());
            }
            prop_assert_eq!(left, tally);
            prop_assert_eq!(out, expected);
            prop_assert_eq!(queue.is_empty(), model.is_empty());
            prop_assert_eq!(queue.end(), came as u64);
            prop_assert_eq!(queue.passed(), (came - waiting(&model)) as u64);
        }
    }
}
