use proptest::prelude::*;

use super::*;
use crate::frame::FrameReader;

fn key(number: u8) -> NodePublic {
    NodePublic::from_bytes([number; KEY_BYTES])
}

/// What a client reads when all of the outbox is written: a word for each frame.
fn read_all(outbox: &mut Outbox) -> Vec<String> {
    let mut bytes = Vec::new();
    outbox.poll_output(&mut bytes);
    assert!(outbox.is_empty());
    let mut input = &bytes[..];
    let mut words = Vec::new();
    while let Some(frame) = FrameReader::new().next_from_server(&mut input).expect("frames") {
        words.push(match frame {
            ServerFrame::RecvPacket { src, payload } => {
                format!("{}:{}", src.as_bytes()[0], String::from_utf8_lossy(payload))
            }
            ServerFrame::PeerGone { key, reason } => {
                format!("gone:{}:{reason:?}", key.as_bytes()[0])
            }
            ServerFrame::Pong(data) => format!("pong:{}", data[0]),
            ServerFrame::ServerKey(_)
            | ServerFrame::ServerInfo(_)
            | ServerFrame::KeepAlive
            | ServerFrame::Ping(_) => panic!("{frame:?} does not come out of an outbox"),
        });
    }
    words
}

#[test]
fn everything_leaves_in_order_of_urgency() {
    let mut outbox = Outbox::default();
    assert!(outbox.is_empty());
    outbox.push_gone(key(9), PeerGoneReason::Disconnected);
    outbox.push_packet(PacketKind::Data, key(1), b"a");
    outbox.push_packet(PacketKind::Disco, key(1), b"d");
    outbox.push_packet(PacketKind::Data, key(2), b"b");
    outbox.push_pong([4; PING_BYTES]);
    assert!(!outbox.is_empty());
    assert_eq!(read_all(&mut outbox), ["pong:4", "1:d", "1:a", "2:b", "gone:9:Disconnected"]);
}

#[test]
fn one_pong_waits_and_the_first_ping_gets_it() {
    let mut outbox = Outbox::default();
    outbox.push_pong([1; PING_BYTES]);
    outbox.push_pong([2; PING_BYTES]);
    assert_eq!(read_all(&mut outbox), ["pong:1"]);
}

#[test]
fn a_peer_that_came_back_is_not_gone() {
    let mut outbox = Outbox::default();
    outbox.push_gone(key(1), PeerGoneReason::Disconnected);
    outbox.push_gone(key(2), PeerGoneReason::NotHere);
    outbox.push_packet(PacketKind::Data, key(1), b"back");
    assert_eq!(read_all(&mut outbox), ["1:back", "gone:2:NotHere"]);
}

#[test]
fn notices_of_gone_peers_are_bounded() {
    let mut outbox = Outbox::default();
    for number in 0..=PEER_GONE_MAX as u64 {
        let mut bytes = [0; KEY_BYTES];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        outbox.push_gone(NodePublic::from_bytes(bytes), PeerGoneReason::Disconnected);
    }
    assert_eq!(outbox.gone.len(), PEER_GONE_MAX);
}

#[test]
fn a_full_queue_forgets_its_oldest_and_spares_the_other() {
    let mut outbox = Outbox::default();
    outbox.push_packet(PacketKind::Disco, key(1), b"disco");
    for number in 0..QUEUE_PACKETS_MAX {
        let dropped = outbox.push_packet(PacketKind::Data, key(1), number.to_string().as_bytes());
        assert_eq!(dropped, Tally::default());
    }
    let one = |bytes| Tally { packets: 1, bytes };
    assert_eq!(outbox.push_packet(PacketKind::Data, key(1), b"x"), one(1), "packet 0");
    for _ in 1..10 {
        outbox.push_packet(PacketKind::Data, key(1), b"x");
    }
    assert_eq!(outbox.push_packet(PacketKind::Data, key(1), b"y"), one(2), "packet 10");
    let words = read_all(&mut outbox);
    assert_eq!(words.len(), 1 + QUEUE_PACKETS_MAX);
    assert_eq!(words[..2], ["1:disco", "1:11"]);
    assert_eq!(words[QUEUE_PACKETS_MAX], "1:y");
}

#[test]
fn a_client_that_reads_nothing_costs_bounded_memory() {
    let mut outbox = Outbox::default();
    let payload = vec![0; crate::PACKET_BYTES_MAX];
    for _ in 0..1000 {
        outbox.push_packet(PacketKind::Data, key(1), &payload);
    }
    assert!(outbox.queues[PacketKind::Data as usize].bytes.capacity() <= 4 * QUEUE_BYTES_MAX);
    let batch = outbox.poll_output(&mut Vec::new());
    let fitting = QUEUE_BYTES_MAX / (payload.len() + AROUND_PACKET_BYTES);
    assert_eq!(batch[PacketKind::Data as usize].packets, fitting as u64);
    outbox.release_memory();
    assert_eq!(outbox.queues[PacketKind::Data as usize].bytes.capacity(), 0);
}

/// Small packets, and now and then one of which few fit.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let size = prop_oneof![9 => 0..50_usize, 1 => Just(crate::PACKET_BYTES_MAX)];
    (any::<u8>(), size).prop_map(|(byte, size)| vec![byte; size])
}

/// The newest packets that a queue has room for.
fn newest(packets: &[Vec<u8>]) -> &[Vec<u8>] {
    let mut bytes = 0;
    let fits = |packet: &&Vec<u8>| {
        bytes += packet.len() + AROUND_PACKET_BYTES;
        bytes <= QUEUE_BYTES_MAX
    };
    let count = packets.iter().rev().take(QUEUE_PACKETS_MAX).take_while(fits).count();
    &packets[packets.len() - count..]
}

proptest! {
    /// The queue of frames against a queue of packets.
    #[test]
    fn queue_is_the_newest_packets_in_order(
        rounds in prop::collection::vec(
            prop::collection::vec(packets(), 0..100),
            0..6,
        ),
    ) {
        let mut queue = PacketQueue::default();
        for packets in rounds {
            let mut dropped = 0;
            for payload in &packets {
                dropped += queue.push(key(1), payload).bytes;
            }
            let kept = newest(&packets);
            let mut expected = Vec::new();
            for payload in kept {
                ServerFrame::RecvPacket { src: key(1), payload }.encode(&mut expected);
            }
            let mut out = Vec::new();
            let tally = queue.drain(&mut out);
            prop_assert_eq!(out, expected);
            prop_assert_eq!(tally.packets, kept.len() as u64);
            prop_assert_eq!(tally.bytes + dropped, packets.concat().len() as u64);
        }
    }
}
