use proptest::prelude::*;

use super::*;

const TRANSACTION: TransactionId = TransactionId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
const TRANSACTION_HEX: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
const NODE_KEY: NodePublic = NodePublic::from_bytes([0xaa; KEY_BYTES]);

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn ping(node_key: Option<NodePublic>, padding_bytes: usize) -> Message {
    Message::Ping { transaction: TRANSACTION, node_key, padding_bytes }
}

fn encode(message: &Message) -> Vec<u8> {
    let mut payload = Vec::new();
    message.encode(&mut payload);
    payload
}

/// Checks that `message` is written as `golden` and that `golden` is read as `message`.
fn check(message: &Message, golden: &[&[u8]]) {
    assert_eq!(encode(message), golden.concat(), "{message:?}");
    assert_eq!(Message::parse(&golden.concat()).as_ref(), Ok(message));
}

/// Checks that these bytes are read as `expected`, though they are not what would be written.
fn check_parse(payload: &[&[u8]], expected: &Result<Message, DiscoError>) {
    assert_eq!(Message::parse(&payload.concat()).as_ref(), expected.as_ref(), "{payload:02x?}");
}

#[test]
fn pings_are_these_bytes() {
    check(
        &ping(Some(NODE_KEY), 0),
        &[
            &[0x01, 0x00],   // type: ping, version
            TRANSACTION_HEX, // transaction
            &[0xaa; 32],     // sender's node key
        ],
    );
    check(&ping(Some(NODE_KEY), 3), &[&[1, 0], TRANSACTION_HEX, &[0xaa; 32], &[0; 3]]);
    check(&ping(None, 0), &[&[1, 0], TRANSACTION_HEX]);
    check(&ping(None, 3), &[&[1, 0], TRANSACTION_HEX, &[0; 3]]);
    check(&ping(None, 32), &[&[1, 0], TRANSACTION_HEX, &[0; 32]]);
}

#[test]
#[rustfmt::skip]
fn pongs_are_these_bytes() {
    let pong = |src| Message::Pong { transaction: TRANSACTION, src: addr(src) };
    check(
        &pong("192.0.2.1:1234"),
        &[
            &[0x02, 0x00],                                    // type: pong, version
            TRANSACTION_HEX,                                  // transaction
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff],      // mapped from IPv4
            &[192, 0, 2, 1],                                  // address
            &[0x04, 0xd2],                                    // port
        ],
    );
    check(
        &pong("[2001:db8::12]:6666"),
        &[
            &[0x02, 0x00],
            TRANSACTION_HEX,
            &[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12],
            &[0x1a, 0x0a],
        ],
    );
}

#[test]
#[rustfmt::skip]
fn call_me_maybes_are_these_bytes() {
    check(&Message::CallMeMaybe { endpoints: Vec::new() }, &[&[0x03, 0x00]]);
    check(
        &Message::CallMeMaybe {
            endpoints: vec![addr("192.0.2.1:567"), addr("[2001:db8::3456]:789")],
        },
        &[
            &[0x03, 0x00],                                    // type: call-me-maybe, version
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff],      // mapped from IPv4
            &[192, 0, 2, 1],                                  // address
            &[0x02, 0x37],                                    // port
            &[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x34, 0x56],
            &[0x03, 0x15],
        ],
    );
}

#[test]
fn address_mapped_from_ipv4_is_written_as_the_ipv4_address() {
    let pong = |src| encode(&Message::Pong { transaction: TRANSACTION, src: addr(src) });
    assert_eq!(pong("[::ffff:192.0.2.1]:1234"), pong("192.0.2.1:1234"));
}

#[test]
fn later_versions_of_ping_and_pong_are_read_as_far_as_known() {
    check_parse(&[&[1, 9], TRANSACTION_HEX, &[0xaa; 32], &[7; 5]], &Ok(ping(Some(NODE_KEY), 5)));
    check_parse(
        &[&[2, 9], TRANSACTION_HEX, &[0; 16], &[0, 80], &[7; 5]],
        &Ok(Message::Pong { transaction: TRANSACTION, src: addr("[::]:80") }),
    );
}

#[test]
fn call_that_is_not_understood_is_still_a_call() {
    let no_endpoints = Ok(Message::CallMeMaybe { endpoints: Vec::new() });
    check_parse(&[&[3, 1], &[7; 18]], &no_endpoints);
    check_parse(&[&[3, 0], &[7; 19]], &no_endpoints);
    check_parse(&[&[3, 0], &[7; 17]], &no_endpoints);
}

#[test]
fn what_is_cut_off_or_unknown_is_refused() {
    check_parse(&[], &Err(DiscoError::Truncated));
    check_parse(&[&[1]], &Err(DiscoError::Truncated));
    check_parse(&[&[1, 0], &[7; 11]], &Err(DiscoError::Truncated));
    check_parse(&[&[2, 0], &[7; 29]], &Err(DiscoError::Truncated));
    for unknown in [0, 4, 9, 255] {
        check_parse(&[&[unknown, 0], &[7; 40]], &Err(DiscoError::UnknownType(unknown)));
    }
}

#[test]
fn what_a_message_can_hold_has_limits() {
    let many = |count| Message::CallMeMaybe { endpoints: vec![addr("192.0.2.1:1"); count] };
    let one_too_many = [encode(&many(ENDPOINTS_MAX)), vec![7; ENDPOINT_BYTES]].concat();
    check_parse(&[&one_too_many], &Ok(many(ENDPOINTS_MAX)));
    assert_eq!(encode(&many(ENDPOINTS_MAX + 1)), encode(&many(ENDPOINTS_MAX)));

    let longest = encode(&ping(Some(NODE_KEY), usize::MAX));
    assert_eq!(longest.len(), PAYLOAD_BYTES_MAX);
    check_parse(&[&longest, &[0]], &Err(DiscoError::TooLong));
}

proptest! {
    #[test]
    fn any_message_that_is_read_is_written_so_that_it_reads_the_same(
        message_type in 0_u8..5,
        version in 0_u8..2,
        body in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..2000),
    ) {
        let payload = [vec![message_type, version], body].concat();
        if let Ok(message) = Message::parse(&payload) {
            prop_assert_eq!(Message::parse(&encode(&message)), Ok(message));
        }
    }
}
