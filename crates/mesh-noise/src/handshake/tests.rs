use bytes::BytesMut;
use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;

const VERSION: u16 = 130;

fn client_key() -> MachinePrivate {
    MachinePrivate::from_bytes([1; KEY_BYTES])
}

fn server_key() -> MachinePrivate {
    MachinePrivate::from_bytes([2; KEY_BYTES])
}

fn initiator() -> Initiator {
    Initiator::new(&client_key(), &server_key().public(), VERSION).expect("initiation")
}

fn respond(initiation: &[u8]) -> Result<Accepted, HandshakeError> {
    Responder::new(&server_key()).respond(initiation)
}

fn check_carries(sealer: &mut Sealer, opener: &mut Opener, plaintext: &[u8]) {
    let mut wire = BytesMut::new();
    sealer.seal_into([plaintext], &mut wire).expect("seal");
    let received = opener.open(&mut wire).expect("open").expect("a whole record");
    assert_eq!(received, plaintext);
    assert!(wire.is_empty());
}

#[test]
fn both_ends_agree_and_the_server_learns_the_machine_key() {
    let initiator = initiator();
    let mut accepted = respond(initiator.initiation()).expect("accepted");
    assert_eq!((accepted.peer, accepted.version), (client_key().public(), VERSION));
    assert_eq!(answer_bytes([2, 0, 48]), Ok(RESPONSE_BYTES));
    let mut client = initiator.finish(&accepted.response).expect("finished");
    for message in [&b"first"[..], b"second"] {
        check_carries(&mut client.sealer, &mut accepted.transport.opener, message);
        check_carries(&mut accepted.transport.sealer, &mut client.opener, message);
    }
}

#[test]
fn two_handshakes_never_share_keys() {
    let (one, two) = (initiator(), initiator());
    assert_ne!(one.initiation(), two.initiation());
    let accepted_one = respond(one.initiation()).expect("accepted");
    let accepted_two = respond(two.initiation()).expect("accepted");
    assert_ne!(accepted_one.response, accepted_two.response);
    assert_eq!(one.finish(&accepted_two.response).err(), Some(HandshakeError::Unauthentic));
}

/// A transcript of tailscale's `control/controlbase` (v1.103.0-dev) with the ephemeral keys fixed: our ends must
/// send and understand the same bytes. The second records tell big-endian counters from little-endian ones.
#[test]
fn transcript_of_the_go_implementation_is_reproduced() {
    let initiation = "00820100605dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef224391bcfef3f1b0f0\
                      51873c2103356110f8056ef928c4354783347c74dc7b71b70e0f5b50a56719be803c073b63f66f6dda6b55c897\
                      c58f41055a914436219188";
    let response = "020030ac01b2209e86354fb853237b5de0f4fab13c7fcbf433a61c019369617fecf10b70ed2feb738975e5fa3438f6\
                    799c5393";
    let from_client = [
        "04001379910eb21ea82b76c670baeba25149b1c3539b",
        "040013bc96b6da366c93d16508790a995b8f0ac7fe79",
    ];
    let from_server = [
        "04001335f34ed86b0a42dff9f0b8233be7938c5ba2ec",
        "040013b25739ce00c0e8c221ad22eddabf7b73cfc513",
    ];
    let (mut client, mut server) = fixed_handshake(initiation, response);
    check_records(&mut client.sealer, &mut server.opener, &["one", "two"], &from_client);
    check_records(&mut server.sealer, &mut client.opener, &["ONE", "TWO"], &from_server);
}

fn fixed_handshake(initiation: &str, response: &str) -> (Transport, Transport) {
    let (client_ephemeral, server_ephemeral) = ([3; KEY_BYTES], [4; KEY_BYTES]);
    let (client_key, server_key, prologue) = (client_key(), server_key(), prologue(VERSION));
    let server_public = server_key.public();
    let client_state = builder(&client_key, &prologue)
        .and_then(|builder| Ok(builder.remote_public_key(server_public.as_bytes())?))
        .expect("builder")
        .fixed_ephemeral_key_for_testing_only(&client_ephemeral)
        .build_initiator()
        .expect("state");
    let server_state = builder(&server_key, &prologue)
        .expect("builder")
        .fixed_ephemeral_key_for_testing_only(&server_ephemeral)
        .build_responder()
        .expect("state");
    let initiator = Initiator::begin(client_state, VERSION).expect("initiation");
    assert_eq!(HEXLOWER.encode(initiator.initiation()), initiation);
    let (version, message) = parse_initiation(initiator.initiation()).expect("initiation");
    let accepted = accept(server_state, version, message).expect("accepted");
    assert_eq!(HEXLOWER.encode(&accepted.response), response);
    (initiator.finish(&accepted.response).expect("finished"), accepted.transport)
}

fn check_records(sealer: &mut Sealer, opener: &mut Opener, plaintexts: &[&str], records: &[&str]) {
    for (plaintext, record) in plaintexts.iter().zip(records) {
        let mut wire = BytesMut::new();
        sealer.seal_into([plaintext.as_bytes()], &mut wire).expect("seal");
        assert_eq!(HEXLOWER.encode(&wire), *record);
        let received = opener.open(&mut wire).expect("open");
        assert_eq!(received.expect("a whole record"), plaintext.as_bytes());
    }
}

#[test]
fn no_bit_of_an_initiation_can_be_changed() {
    let genuine = *initiator().initiation();
    for position in 0..genuine.len() {
        for bit in [0x01, 0x40] {
            let mut changed = genuine;
            changed[position] ^= bit;
            let error = respond(&changed).expect_err("a changed initiation");
            let expected = match position {
                2 => matches!(error, HandshakeError::Type { expected: 1, .. }),
                3 | 4 => matches!(error, HandshakeError::Length { .. }),
                _ => error == HandshakeError::Unauthentic,
            };
            assert!(expected, "byte {position}: {error}");
        }
    }
}

#[test]
fn no_byte_of_a_response_can_be_changed() {
    for position in 0..RESPONSE_BYTES {
        let initiator = initiator();
        let mut response = respond(initiator.initiation()).expect("accepted").response;
        response[position] ^= 0x04;
        let error = initiator.finish(&response).expect_err("a changed response");
        let expected = match position {
            0 => matches!(error, HandshakeError::Type { expected: 2, .. }),
            1 | 2 => matches!(error, HandshakeError::Length { .. }),
            _ => error == HandshakeError::Unauthentic,
        };
        assert!(expected, "byte {position}: {error}");
    }
}

#[test]
fn messages_of_another_length_are_refused() {
    let initiation = *initiator().initiation();
    let long = [&initiation[..], &[0]].concat();
    for wrong in [&[][..], &initiation[..100], &long] {
        let expected = HandshakeError::Length { expected: INITIATION_BYTES, got: wrong.len() };
        assert_eq!(respond(wrong).err(), Some(expected));
    }
    let response = respond(&initiation).expect("accepted").response;
    let long = [&response[..], &[0]].concat();
    for wrong in [&[][..], &response[..2], &response[..50], &long] {
        let expected = HandshakeError::Length { expected: RESPONSE_BYTES, got: wrong.len() };
        assert_eq!(initiator().finish(wrong).err(), Some(expected));
    }
}

#[test]
fn another_server_key_is_refused() {
    let other = Responder::new(&MachinePrivate::from_bytes([9; KEY_BYTES]));
    let error = other.respond(initiator().initiation()).expect_err("not for this server");
    assert_eq!(error, HandshakeError::Unauthentic);
}

/// The points of order 1, 2, 4 and 8 of Curve25519 and its twist, with the encodings that reduce to them.
fn low_order_keys() -> [[u8; KEY_BYTES]; 7] {
    let key = |hex: &str| -> [u8; KEY_BYTES] {
        HEXLOWER.decode(hex.as_bytes()).expect("hex").try_into().expect("a key")
    };
    [
        [0; KEY_BYTES],
        key("0100000000000000000000000000000000000000000000000000000000000000"),
        key("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        key("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        key("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        key("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        key("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    ]
}

#[test]
fn low_order_keys_are_refused_on_both_ends() {
    for key in low_order_keys() {
        let mut initiation = *initiator().initiation();
        initiation[5..5 + KEY_BYTES].copy_from_slice(&key);
        assert_eq!(respond(&initiation).err(), Some(HandshakeError::LowOrderKey));
        let server = MachinePublic::from_bytes(key);
        let error = Initiator::new(&client_key(), &server, VERSION).expect_err("no server's key");
        assert_eq!(error, HandshakeError::LowOrderKey);
        let mut response = respond(initiator().initiation()).expect("accepted").response;
        response[FRAME_HEADER_BYTES..][..KEY_BYTES].copy_from_slice(&key);
        assert_eq!(initiator().finish(&response).err(), Some(HandshakeError::LowOrderKey));
    }
}

#[test]
fn error_frame_carries_its_text() {
    let frame = error_frame("too old");
    assert_eq!(frame, b"\x03\x00\x07too old");
    assert_eq!(answer_bytes([3, 0, 7]), Ok(10));
    let error = initiator().finish(&frame).expect_err("refused");
    assert_eq!(error.to_string(), r#"server refused the handshake: "too old""#);
    let frame = error_frame(&"x".repeat(70_000));
    assert_eq!(answer_bytes([3, 0xff, 0xff]), Ok(frame.len()));
}

#[test]
fn answer_of_an_unknown_type_or_length_is_refused_by_its_header() {
    assert_eq!(answer_bytes([4, 0, 48]), Err(HandshakeError::Type { expected: 2, got: 4 }));
    let expected = HandshakeError::Length { expected: RESPONSE_BYTES, got: 3 + 49 };
    assert_eq!(answer_bytes([2, 0, 49]), Err(expected));
}

proptest! {
    #[test]
    fn any_bytes_end_as_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(respond(&bytes).is_err());
        prop_assert!(initiator().finish(&bytes).is_err());
    }
}
