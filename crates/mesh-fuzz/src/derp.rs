//! DERP: frames in both directions, the login, and STUN beside it.

use std::sync::LazyLock;

use mesh_derp::{
    ClientInfo, ClientLogin, FrameError, FrameReader, HEADER_BYTES, NONCE_BYTES, ServerLogin, stun,
};
use mesh_keys::{DerpPrivate, KEY_BYTES, NodePrivate};

static RELAY: LazyLock<ServerLogin> =
    LazyLock::new(|| ServerLogin::new(DerpPrivate::from_bytes([7; 32]), None));
static CLIENT: LazyLock<NodePrivate> = LazyLock::new(|| NodePrivate::from_bytes([9; 32]));

/// Any bytes as what a client sends after login, and as what a relay sends.
///
/// The first byte says how many bytes arrive at a time: that must not change what is read.
pub(crate) fn frames(input: &[u8]) {
    let Some((&piece, stream)) = input.split_first() else { return };
    let piece_bytes = usize::from(piece) + 1;
    for next in [next_from_client, next_from_server] {
        assert_eq!(
            read_all(stream, piece_bytes, next),
            read_all(stream, stream.len().max(1), next)
        );
    }
}

/// Any bytes as a client's login and as the relay's answer; then a client's login with any change to it.
pub(crate) fn login(input: &[u8]) {
    let _ = RELAY.handle_input(&mut &*input);
    let client = ClientLogin::new(&CLIENT, &RELAY.public_key()).expect("a valid relay key");
    let _ = client.open_server_info(input);

    let mut honest = Vec::new();
    client.encode_client_info([1; NONCE_BYTES], &ClientInfo::default(), &mut honest);
    let mut changed = honest.clone();
    changed.iter_mut().zip(input).for_each(|(byte, change)| *byte ^= change);
    changed[KEY_TOP_BYTE] &= 0x7f;
    let accepted = RELAY.handle_input(&mut &changed[..]).is_ok_and(|login| login.is_some());
    assert_eq!(accepted, changed == honest, "only the honest login is accepted");
}

/// Where the last byte of the client's key stands in its login frame. Curve25519 ignores the top bit of
/// it, so a key with that bit opens the same box: another name for the client, and for nobody else.
const KEY_TOP_BYTE: usize = HEADER_BYTES + KEY_BYTES - 1;

/// Any datagram as a STUN request; an answer is never much longer than its request.
pub(crate) fn stun(input: &[u8]) {
    let Ok(transaction) = stun::parse_binding_request(input) else { return };
    for sender in ["192.0.2.1:1", "[2001:db8::1]:65535"] {
        let sender = sender.parse().expect("an address");
        let response = stun::encode_binding_response(&transaction, sender);
        assert!(response.len() <= input.len() + 4, "an answer that multiplies traffic");
    }
}

/// Takes the next frame off the front of the input and returns it in its written form.
type Next = fn(&mut FrameReader, &mut &[u8]) -> Result<Option<Vec<u8>>, FrameError>;

fn next_from_client(
    reader: &mut FrameReader,
    input: &mut &[u8],
) -> Result<Option<Vec<u8>>, FrameError> {
    let frame = reader.next_from_client(input)?;
    Ok(frame.map(|frame| {
        let mut written = Vec::new();
        frame.encode(&mut written);
        let again = FrameReader::new().next_from_client(&mut &written[..]);
        assert_eq!(again, Ok(Some(frame)), "what was written reads back the same");
        written
    }))
}

fn next_from_server(
    reader: &mut FrameReader,
    input: &mut &[u8],
) -> Result<Option<Vec<u8>>, FrameError> {
    let frame = reader.next_from_server(input)?;
    Ok(frame.map(|frame| {
        let mut written = Vec::new();
        frame.encode(&mut written);
        let again = FrameReader::new().next_from_server(&mut &written[..]);
        assert_eq!(again, Ok(Some(frame)), "what was written reads back the same");
        written
    }))
}

/// All frames of a stream that arrives in pieces, and how it ends.
fn read_all(
    stream: &[u8],
    piece_bytes: usize,
    next: Next,
) -> (Vec<Vec<u8>>, Result<(), FrameError>) {
    let mut reader = FrameReader::new();
    let mut frames = Vec::new();
    let mut arrived = Vec::new();
    for piece in stream.chunks(piece_bytes) {
        arrived.extend_from_slice(piece);
        let mut rest = &arrived[..];
        loop {
            match next(&mut reader, &mut rest) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
        arrived = rest.to_vec();
    }
    (frames, Ok(()))
}

/// Any datagram as a STUN response; what it tells reads the same when a server of ours tells it.
pub(crate) fn stun_response(input: &[u8]) {
    let Ok(told) = stun::parse_binding_response(input) else { return };
    let written = stun::encode_binding_response(&told.0, told.1);
    assert_eq!(stun::parse_binding_response(&written), Ok(told), "an address reads as written");
    let request = stun::encode_binding_request(&told.0);
    assert_eq!(stun::parse_binding_request(&request), Ok(told.0), "a request reads as written");
}
