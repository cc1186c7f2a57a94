use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What a reader makes of a stream that comes in pieces: its bytes, the pings among them, and how it ends.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    bytes: Vec<u8>,
    pings: Vec<Vec<u8>>,
    end: Option<Result<u16, WebSocketError>>,
}

fn read(stream: &[u8], piece_bytes: usize, room_bytes: usize) -> Read {
    let (mut reader, mut read, mut room) =
        (WebSocketReader::new(), Read::default(), vec![0; room_bytes]);
    for mut piece in stream.chunks(piece_bytes) {
        loop {
            match reader.next(&mut piece, &mut room) {
                Ok(Some(Event::Data(bytes))) => read.bytes.extend_from_slice(bytes),
                Ok(Some(Event::Ping(data))) => read.pings.push(data.to_vec()),
                Ok(Some(Event::Close(code))) => return Read { end: Some(Ok(code)), ..read },
                Ok(None) => break,
                Err(error) => return Read { end: Some(Err(error)), ..read },
            }
        }
        assert!(piece.is_empty(), "all of a piece is taken");
    }
    read
}

/// A frame as a client writes it.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        length @ ..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length @ ..0x1_0000 => {
            frame.push(0xfe);
            frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            frame.push(0xff);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn check_end(stream: &[u8], expected: Result<u16, WebSocketError>) {
    for piece_bytes in [1, 1000] {
        assert_eq!(read(stream, piece_bytes, 1).end, Some(expected), "{stream:02x?}");
    }
}

/// The example of RFC 6455, section 5.7, but for its opcode.
#[test]
fn the_example_of_the_standard_is_read() {
    let stream = [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(read(&stream, 100, 100).bytes, b"Hello");
    assert_eq!(masked(0x82, b"Hello"), stream);
}

#[test]
fn fragments_and_pings_between_them_are_one_stream() {
    let stream = [
        masked(0x02, b"one "),
        masked(0x89, b"are you there?"),
        masked(0x00, b""),
        masked(0x8a, b"an answer that nobody asked for"),
        masked(0x80, b"message, "),
        masked(0x82, b"another"),
        masked(0x88, &[0x03, 0xe9, b'b', b'y', b'e']),
        b"what comes behind".to_vec(),
    ];
    let read = read(&stream.concat(), 3, 2);
    assert_eq!(read.bytes, b"one message, another");
    assert_eq!(read.pings, [b"are you there?"]);
    assert_eq!(read.end, Some(Ok(1001)));
}

#[test]
fn what_is_against_the_protocol_ends_the_stream() {
    let unmasked = b"\x82\x05Hello";
    let extended = masked(0xc2, b"compressed?");
    let unknown = masked(0x83, b"");
    let unknown_control = masked(0x8b, b"");
    let long_ping = masked(0x89, &[0; 126]);
    let ping_in_parts = masked(0x09, b"");
    let out_of_nowhere = masked(0x80, b"");
    let interrupted = [masked(0x02, b"a"), masked(0x82, b"b")].concat();
    let endless = b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff";
    let half_a_code = masked(0x88, &[0x03]);
    let no_code = masked(0x88, &[0x03, 0xed]);
    for stream in [
        unmasked.as_slice(),
        &extended,
        &unknown,
        &unknown_control,
        &long_ping,
        &ping_in_parts,
        &out_of_nowhere,
        &interrupted,
        endless,
        &half_a_code,
        &no_code,
    ] {
        check_end(stream, Err(WebSocketError::Protocol));
    }
    check_end(&masked(0x81, "text".as_bytes()), Err(WebSocketError::Text));
    check_end(&masked(0x88, b""), Ok(CLOSE_NORMAL));
}

/// Nothing of it is kept, so nothing has to be refused.
#[test]
fn a_message_may_be_of_any_length() {
    let mut reader = WebSocketReader::new();
    let mut room = [0; 100];
    let mut input = &b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0abc"[..];
    assert_eq!(reader.next(&mut input, &mut room), Ok(Some(Event::Data(b"abc"))));
}

#[test]
fn frames_are_written_without_a_mask() {
    let check = |frame: Frame<'_>, expected: &[u8]| {
        let mut out = Vec::new();
        frame.encode(&mut out);
        assert_eq!(out, expected);
    };
    check(Frame::Data(0), &[0x82, 0]);
    check(Frame::Data(125), &[0x82, 125]);
    check(Frame::Data(126), &[0x82, 126, 0, 126]);
    check(Frame::Data(MESSAGE_BYTES_MAX), &[0x82, 126, 0x3f, 0xfc]);
    check(Frame::Pong(b"ping"), b"\x8a\x04ping");
    check(Frame::Close(1000), &[0x88, 2, 0x03, 0xe8]);
}

proptest! {
    #[test]
    fn messages_of_all_lengths_come_out_as_they_went_in(
        lengths in vec(prop_oneof![0..130_usize, 65_500..65_600_usize], 0..6),
        piece_bytes in 1..70_000_usize,
        room_bytes in 1..5000_usize,
    ) {
        let mut stream = Vec::new();
        let mut sent = Vec::new();
        for (number, length) in (0_u8..).zip(lengths) {
            let message = (0..length).map(|place| number ^ place.to_le_bytes()[0]).collect::<Vec<_>>();
            stream.extend(masked(0x82, &message));
            sent.extend(message);
        }
        let expected = Read { bytes: sent, ..Read::default() };
        prop_assert_eq!(read(&stream, piece_bytes, room_bytes), expected);
    }

    #[test]
    fn pieces_change_nothing(
        stream in vec(any::<u8>(), 0..300),
        piece_bytes in 1..20_usize,
        room_bytes in 1..20_usize,
    ) {
        prop_assert_eq!(read(&stream, piece_bytes, room_bytes), read(&stream, 1000, 1000));
    }
}
