//! The ts2021 handshake and record layer, as a stranger meets them and as two honest ends do.

use std::sync::LazyLock;

use bytes::BytesMut;
use mesh_keys::MachinePrivate;
use mesh_noise::{
    INITIATION_BYTES, Initiator, Opener, Responder, Sealer, Transport, answer_bytes,
    parse_early_payload,
};

static SERVER: LazyLock<MachinePrivate> = LazyLock::new(|| MachinePrivate::from_bytes([7; 32]));
static CLIENT: LazyLock<MachinePrivate> = LazyLock::new(|| MachinePrivate::from_bytes([9; 32]));

/// Any bytes as a client's message, as a change to a client's message, as the server's answer, and as the
/// first bytes inside the channel.
pub(crate) fn handshake(input: &[u8]) {
    let responder = Responder::new(&SERVER);
    let _ = responder.respond(input);

    let client = initiator();
    let mut changed = *client.initiation();
    changed.iter_mut().zip(input).for_each(|(byte, change)| *byte ^= change);
    if changed != *client.initiation() {
        assert!(responder.respond(&changed).is_err(), "a changed initiation was accepted");
    }

    if let Some(header) = input.first_chunk() {
        let _ = answer_bytes(*header);
    }
    let _ = client.finish(input);
    let _ = parse_early_payload(input);
}

/// The input as what one end sends to the other, arriving in pieces, then as records of a stranger.
///
/// The first byte says how many bytes arrive at a time.
pub(crate) fn record(input: &[u8]) {
    let Some((&piece, plaintext)) = input.split_first() else { return };
    let (mut client, mut server) = channel();
    let mut sent = BytesMut::new();
    client.sealer.seal_into([plaintext], &mut sent).expect("numbers are left");
    let received = open_in_pieces(&mut server.opener, &sent, usize::from(piece) + 1);
    assert_eq!(received, plaintext);
    stranger(&mut client.opener, &mut server.sealer, plaintext);
}

fn open_in_pieces(opener: &mut Opener, sent: &[u8], piece_bytes: usize) -> Vec<u8> {
    let mut received = Vec::new();
    let mut arrived = BytesMut::new();
    for piece in sent.chunks(piece_bytes) {
        arrived.extend_from_slice(piece);
        while let Some(plaintext) = opener.open(&mut arrived).expect("honest records open") {
            received.extend_from_slice(&plaintext);
        }
    }
    assert!(arrived.is_empty(), "bytes are left over");
    received
}

/// Nothing of `bytes` is taken for a record, and a channel that broke stays broken.
fn stranger(opener: &mut Opener, sealer: &mut Sealer, bytes: &[u8]) {
    let mut arrived = BytesMut::from(bytes);
    if opener.open(&mut arrived).map(|record| assert_eq!(record, None)).is_err() {
        let mut honest = BytesMut::new();
        sealer.seal_into([&b"late"[..]], &mut honest).expect("numbers are left");
        assert!(opener.open(&mut honest).is_err(), "a broken channel went on");
    }
}

/// Both ends of an open channel, client first.
fn channel() -> (Transport, Transport) {
    let client = initiator();
    let initiation: &[u8; INITIATION_BYTES] = client.initiation();
    let accepted = Responder::new(&SERVER).respond(initiation).expect("an honest handshake");
    let transport = client.finish(&accepted.response).expect("an honest answer");
    (transport, accepted.transport)
}

fn initiator() -> Initiator {
    Initiator::new(&CLIENT, &SERVER.public(), 131).expect("a valid server key")
}
