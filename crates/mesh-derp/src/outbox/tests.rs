use super::*;
use crate::frame::FrameReader;
use crate::packet::PACKET_BYTES_MAX;

fn key(number: u8) -> NodePublic {
    NodePublic::from_bytes([number; KEY_BYTES])
}

/// What a client reads when all of the outbox is written: a word for each frame.
fn read_all(outbox: &mut Outbox) -> Vec<String> {
    let mut bytes = Vec::new();
    while !outbox.is_empty() {
        let mut more = Vec::new();
        outbox.poll_output(&mut more, usize::MAX);
        bytes.append(&mut more);
    }
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
            | ServerFrame::PeerPresent(_)
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
    assert_eq!(read_all(&mut outbox), ["pong:4", "1:d", "2:b", "1:a", "gone:9:Disconnected"]);
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
    outbox.forget_gone(&key(1));
    outbox.push_packet(PacketKind::Data, key(1), b"back");
    assert_eq!(read_all(&mut outbox), ["1:back", "gone:2:NotHere"]);
}

#[test]
fn a_packet_that_comes_late_goes_before_the_notice() {
    let mut outbox = Outbox::default();
    outbox.push_gone(key(1), PeerGoneReason::Disconnected);
    outbox.push_packet(PacketKind::Data, key(1), b"late");
    outbox.postpone_gone(&key(1));
    outbox.postpone_gone(&key(2));
    assert_eq!(read_all(&mut outbox), ["1:late", "gone:1:Disconnected"]);
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
    let mut packets = 0;
    while !outbox.is_empty() {
        packets +=
            outbox.poll_output(&mut Vec::new(), usize::MAX)[PacketKind::Data as usize].packets;
    }
    let fitting = QUEUE_BYTES_MAX / (payload.len() + AROUND_PACKET_BYTES);
    assert_eq!(packets, fitting as u64);
    assert!(outbox.is_empty());
}

#[test]
fn disco_and_data_share_what_is_written() {
    let mut outbox = Outbox::default();
    for number in 0..100 {
        outbox.push_packet(PacketKind::Disco, key(1), &[number; 200]);
        outbox.push_packet(PacketKind::Data, key(1), &[number; 200]);
    }
    let [disco, data] = outbox.poll_output(&mut Vec::new(), 10_000);
    assert!(disco.packets.abs_diff(data.packets) <= 2, "{disco:?} {data:?}");
    assert!((4_000..=5_500).contains(&disco.bytes), "{disco:?}");
}

#[test]
fn long_disco_packets_leave_data_its_part() {
    let mut outbox = Outbox::default();
    for _ in 0..20 {
        outbox.push_packet(PacketKind::Disco, key(1), &vec![0; PACKET_BYTES_MAX]);
        outbox.push_packet(PacketKind::Data, key(2), &[0; 1400]);
    }
    let [disco, data] = outbox.poll_output(&mut Vec::new(), PACKET_BYTES_MAX);
    assert_eq!((disco.packets, data.packets), (1, 20));
}

#[test]
fn who_is_gone_is_told_behind_its_packets_and_not_behind_those_of_later() {
    let mut outbox = Outbox::default();
    outbox.push_packet(PacketKind::Data, key(1), &[1; 1000]);
    outbox.push_packet(PacketKind::Data, key(2), &[2; 1000]);
    outbox.push_gone(key(1), PeerGoneReason::Disconnected);
    for _ in 0..10 {
        outbox.push_packet(PacketKind::Data, key(2), &[3; 1000]);
    }
    loop {
        let mut bytes = Vec::new();
        let [_, data] = outbox.poll_output(&mut bytes, 1000);
        assert_eq!(data.packets, 1);
        let is_told = bytes.len() > 1000 + AROUND_PACKET_BYTES;
        let is_last_of_it = bytes[HEADER_BYTES] == 1;
        assert_eq!(is_told, is_last_of_it);
        if is_told {
            break;
        }
    }
    assert!(!outbox.is_empty());
}
