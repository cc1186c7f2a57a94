use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;

use super::*;

const KEY: NodePublic = NodePublic::from_bytes([0xaa; KEY_BYTES]);
const OTHER_KEY: NodePublic = NodePublic::from_bytes([0xbb; KEY_BYTES]);

/// Checks that `frame` is written as `golden` and that `golden` is read as `frame`.
fn check_client(frame: ClientFrame<'_>, golden: &[&[u8]]) {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    assert_eq!(bytes, golden.concat());
    let mut input = &bytes[..];
    assert_eq!(FrameReader::new().next_from_client(&mut input), Ok(Some(frame)));
    assert!(input.is_empty());
}

fn check_server(frame: ServerFrame<'_>, golden: &[&[u8]]) {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    assert_eq!(bytes, golden.concat());
    let mut input = &bytes[..];
    assert_eq!(FrameReader::new().next_from_server(&mut input), Ok(Some(frame)));
    assert!(input.is_empty());
}

#[test]
fn client_frames_are_these_bytes() {
    check_client(
        ClientFrame::SendPacket { dst: KEY, payload: b"abc" },
        &[
            &[0x04],          // type: send packet
            &[0, 0, 0, 0x23], // 35 bytes follow
            &[0xaa; 32],      // destination
            b"abc",           // packet
        ],
    );
    check_client(ClientFrame::NotePreferred(true), &[&[0x07, 0, 0, 0, 1, 1]]);
    check_client(ClientFrame::NotePreferred(false), &[&[0x07, 0, 0, 0, 1, 0]]);
    check_client(ClientFrame::Ping(*b"12345678"), &[&[0x12, 0, 0, 0, 8], b"12345678"]);
    check_client(ClientFrame::Pong(*b"12345678"), &[&[0x13, 0, 0, 0, 8], b"12345678"]);
    check_client(
        ClientFrame::ForwardPacket { src: KEY, dst: OTHER_KEY, payload: b"abc" },
        &[
            &[0x0a],          // type: forward packet
            &[0, 0, 0, 0x43], // 67 bytes follow
            &[0xaa; 32],      // source
            &[0xbb; 32],      // destination
            b"abc",           // packet
        ],
    );
    check_client(ClientFrame::WatchConns, &[&[0x10, 0, 0, 0, 0]]);
    check_client(ClientFrame::ClosePeer(KEY), &[&[0x11, 0, 0, 0, 0x20], &[0xaa; 32]]);
}

#[test]
fn server_frames_are_these_bytes() {
    check_server(
        ServerFrame::ServerKey(KEY),
        &[
            &[0x01],                                           // type: server key
            &[0, 0, 0, 0x28],                                  // 40 bytes follow
            &[0x44, 0x45, 0x52, 0x50, 0xf0, 0x9f, 0x94, 0x91], // magic
            &[0xaa; 32],                                       // the relay's key
        ],
    );
    check_server(ServerFrame::ServerInfo(b"sealed"), &[&[0x03, 0, 0, 0, 6], b"sealed"]);
    check_server(
        ServerFrame::RecvPacket { src: KEY, payload: b"abc" },
        &[
            &[0x05],          // type: receive packet
            &[0, 0, 0, 0x23], // 35 bytes follow
            &[0xaa; 32],      // source
            b"abc",           // packet
        ],
    );
    check_server(ServerFrame::KeepAlive, &[&[0x06, 0, 0, 0, 0]]);
    for (reason, byte) in [(PeerGoneReason::Disconnected, 0), (PeerGoneReason::NotHere, 1)] {
        check_server(
            ServerFrame::PeerGone { key: KEY, reason },
            &[
                &[0x08],          // type: peer gone
                &[0, 0, 0, 0x21], // 33 bytes follow
                &[0xaa; 32],      // the peer
                &[byte],          // reason
            ],
        );
    }
    let (v4, v6) = (Ipv4Addr::new(192, 0, 2, 1), "2001:db8::7".parse().expect("an address"));
    let mapped: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];
    let addresses = [(IpAddr::V4(v4), mapped), (IpAddr::V6(v6), &Ipv6Addr::octets(&v6))];
    for (ip, golden) in addresses {
        let flags = PeerPresent::MESH_PEER | PeerPresent::PROBER;
        check_server(
            ServerFrame::PeerPresent(PeerPresent {
                key: KEY,
                addr: SocketAddr::new(ip, 0x0102),
                flags,
            }),
            &[
                &[0x09],          // type: peer present
                &[0, 0, 0, 0x33], // 51 bytes follow
                &[0xaa; 32],      // the peer
                golden,           // its IPv6 address, or that which stands for its IPv4 address
                &[1, 2],          // its port
                &[6],             // flags
            ],
        );
    }
    check_server(ServerFrame::Ping(*b"12345678"), &[&[0x12, 0, 0, 0, 8], b"12345678"]);
    check_server(ServerFrame::Pong(*b"12345678"), &[&[0x13, 0, 0, 0, 8], b"12345678"]);
}

#[test]
fn later_additions_to_known_frames_are_accepted() {
    let read = |parts: &[&[u8]], expected: ServerFrame<'_>| {
        let bytes = parts.concat();
        assert_eq!(FrameReader::new().next_from_server(&mut &bytes[..]), Ok(Some(expected)));
    };
    let key = KEY.as_bytes().as_slice();
    read(&[&[0x01, 0, 0, 0, 44], MAGIC, key, b"more"], ServerFrame::ServerKey(KEY));
    read(&[&[0x12, 0, 0, 0, 10], b"1234567890"], ServerFrame::Ping(*b"12345678"));
    let gone = ServerFrame::PeerGone { key: KEY, reason: PeerGoneReason::Disconnected };
    read(&[&[0x08, 0, 0, 0, 32], key], gone);
    read(&[&[0x08, 0, 0, 0, 33], key, &[0xf0]], gone);
    let addr = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
    let present = |flags| ServerFrame::PeerPresent(PeerPresent { key: KEY, addr, flags });
    read(&[&[0x09, 0, 0, 0, 32], key], present(0));
    read(&[&[0x09, 0, 0, 0, 50], key, &[0; 18]], present(0));
    read(&[&[0x09, 0, 0, 0, 55], key, &[0; 18], b"\x01more"], present(PeerPresent::REGULAR));
}

#[test]
fn a_greeting_without_the_magic_is_refused() {
    let bytes = [&[0x01, 0, 0, 0, 40], [0xaa; 40].as_slice()].concat();
    let read = FrameReader::new().next_from_server(&mut &bytes[..]);
    assert_eq!(read, Err(FrameError::Magic));
}

#[test]
fn hostile_lengths_are_refused_by_the_header_alone() {
    let check = |frame_type: u8, length: u32, accepted: bool| {
        let mut header = vec![frame_type];
        header.extend_from_slice(&length.to_be_bytes());
        let expected = if accepted {
            Ok(None)
        } else {
            Err(FrameError::Length { frame_type, bytes: length as usize })
        };
        assert_eq!(FrameReader::new().next_from_client(&mut &header[..]), expected);
    };
    for (frame_type, lengths) in [
        (frame_type::SEND_PACKET, 32..=65_568),
        (frame_type::NOTE_PREFERRED, 1..=1),
        (frame_type::PING, 8..=1000),
        (frame_type::PONG, 8..=1000),
        (frame_type::FORWARD_PACKET, 64..=65_600),
        (frame_type::CLOSE_PEER, 32..=32),
        // A logged-in client's second login is an unknown frame.
        (frame_type::CLIENT_INFO, 0..=1 << 20),
        (0xff, 0..=1 << 20),
    ] {
        check(frame_type, *lengths.start(), true);
        check(frame_type, *lengths.end(), true);
        check(frame_type, *lengths.end() + 1, false);
        check(frame_type, u32::MAX, false);
    }
    check(frame_type::SEND_PACKET, 31, false);
    check(frame_type::NOTE_PREFERRED, 0, false);
    check(frame_type::PING, 7, false);
    check(frame_type::FORWARD_PACKET, 63, false);
    check(frame_type::CLOSE_PEER, 31, false);
    check(frame_type::WATCH_CONNS, 1, false);
}

#[test]
fn unknown_frames_are_skipped_piece_by_piece() {
    let mut bytes = vec![0x77];
    bytes.extend_from_slice(&300_000_u32.to_be_bytes());
    bytes.resize(HEADER_BYTES + 300_000, 0x04);
    ClientFrame::NotePreferred(true).encode(&mut bytes);

    let mut reader = FrameReader::new();
    let mut kept = Vec::new();
    let mut frames = 0;
    for piece in bytes.chunks(1000) {
        kept.extend_from_slice(piece);
        let mut input = &kept[..];
        while let Some(frame) = reader.next_from_client(&mut input).expect("frames") {
            assert_eq!(frame, ClientFrame::NotePreferred(true));
            frames += 1;
        }
        kept = input.to_vec();
        assert!(kept.len() <= HEADER_BYTES + 1, "nothing of a skipped frame is kept");
    }
    assert_eq!(frames, 1);
}

/// One frame of a client as a value that owns its bytes.
fn any_frame() -> impl Strategy<Value = (u8, [u8; 32], Vec<u8>)> {
    (0_u8..7, any::<[u8; 32]>(), prop::collection::vec(any::<u8>(), 0..2000))
}

fn client_frame<'b>(kind: u8, key: &[u8; 32], payload: &'b [u8]) -> ClientFrame<'b> {
    let ping = key[..PING_BYTES].try_into().expect("eight bytes");
    match kind {
        0 => ClientFrame::NotePreferred(key[0] > 127),
        1 => ClientFrame::Ping(ping),
        2 => ClientFrame::Pong(ping),
        3 => ClientFrame::WatchConns,
        4 => ClientFrame::ForwardPacket { src: KEY, dst: NodePublic::from_bytes(*key), payload },
        _ => ClientFrame::SendPacket { dst: NodePublic::from_bytes(*key), payload },
    }
}

proptest! {
    #[test]
    fn frames_survive_any_chopping(
        frames in prop::collection::vec(any_frame(), 0..12),
        cuts in prop::collection::vec(1_usize..700, 1..40),
    ) {
        let expected: Vec<_> =
            frames.iter().map(|(kind, key, payload)| client_frame(*kind, key, payload)).collect();
        let mut stream = Vec::new();
        for frame in &expected {
            frame.encode(&mut stream);
        }

        let mut reader = FrameReader::new();
        let mut kept = Vec::new();
        let mut seen = 0;
        let mut cuts = cuts.iter().cycle();
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*cuts.next().expect("a cycle")));
            rest = after;
            kept.extend_from_slice(piece);
            let mut input = &kept[..];
            while let Some(frame) = reader.next_from_client(&mut input).expect("frames") {
                prop_assert_eq!(&frame, &expected[seen]);
                seen += 1;
            }
            kept = input.to_vec();
        }
        prop_assert_eq!(seen, expected.len());
        prop_assert!(kept.is_empty());
    }

    #[test]
    fn any_bytes_end_as_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut input = &bytes[..];
        let mut reader = FrameReader::new();
        while let Ok(Some(_)) = reader.next_from_client(&mut input) {}
        let mut input = &bytes[..];
        let mut reader = FrameReader::new();
        while let Ok(Some(_)) = reader.next_from_server(&mut input) {}
    }
}
