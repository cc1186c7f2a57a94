use proptest::prelude::*;

use super::*;

const TRANSACTION: TransactionId = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

/// As tailscale v1.102.5 (Go) writes it for that transaction.
#[rustfmt::skip]
const REQUEST: [u8; 40] = [
    0x00, 0x01, 0x00, 0x14,                         // binding request, 20 bytes of attributes
    0x21, 0x12, 0xa4, 0x42,                         // magic cookie
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,          // transaction
    0x80, 0x22, 0x00, 0x08,                         // SOFTWARE, 8 bytes
    b't', b'a', b'i', b'l', b'n', b'o', b'd', b'e',
    0x80, 0x28, 0x00, 0x04,                         // FINGERPRINT, 4 bytes
    0xb3, 0x2c, 0x37, 0x0f,
];

#[test]
fn request_of_a_client_is_read() {
    assert_eq!(parse_binding_request(&REQUEST), Ok(TRANSACTION));
}

#[test]
fn response_tells_the_sender_its_address() {
    let check = |sender: &str, golden: &[u8]| {
        let sender = sender.parse().expect("address");
        assert_eq!(encode_binding_response(&TRANSACTION, sender), golden, "{sender}");
    };
    // Both as tailscale v1.102.5 (Go) writes them.
    #[rustfmt::skip]
    let v4 = [
        0x01, 0x01, 0x00, 0x0c,                // binding response, 12 bytes of attributes
        0x21, 0x12, 0xa4, 0x42,                // magic cookie
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, // transaction
        0x00, 0x20, 0x00, 0x08,                // XOR-MAPPED-ADDRESS, 8 bytes
        0x00, 0x01, 0xa1, 0x47,                // IPv4, port
        0xe1, 0x12, 0xa6, 0x43,                // address
    ];
    check("192.0.2.1:32853", &v4);
    check("[::ffff:192.0.2.1]:32853", &v4);
    #[rustfmt::skip]
    let v6 = [
        0x01, 0x01, 0x00, 0x18,                // binding response, 24 bytes of attributes
        0x21, 0x12, 0xa4, 0x42,
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
        0x00, 0x20, 0x00, 0x14,                // XOR-MAPPED-ADDRESS, 20 bytes
        0x00, 0x02, 0xa1, 0x47,                // IPv6, port
        0x01, 0x13, 0xa9, 0xfa, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13,
    ];
    check("[2001:db8::1]:32853", &v6);
}

#[test]
fn other_datagrams_are_told_apart() {
    let check = |change: fn(&mut Vec<u8>), expected: StunError| {
        let mut datagram = REQUEST.to_vec();
        change(&mut datagram);
        assert_eq!(parse_binding_request(&datagram), Err(expected));
    };
    check(Vec::clear, StunError::NotBindingRequest);
    check(|datagram| datagram.truncate(19), StunError::NotBindingRequest);
    check(|datagram| datagram[0] = 1, StunError::NotBindingRequest);
    check(|datagram| datagram[4] = 0, StunError::NotBindingRequest);
    check(|datagram| datagram.truncate(20), StunError::Software);
    check(|datagram| datagram[24] = b'T', StunError::Software);
    check(|datagram| datagram.truncate(32), StunError::Fingerprint);
    check(|datagram| datagram[39] ^= 1, StunError::Fingerprint);
    check(|datagram| datagram[8] ^= 1, StunError::Fingerprint);
    check(|datagram| datagram.truncate(39), StunError::Attributes);
    check(|datagram| datagram[22] = 0xff, StunError::Attributes);
}

proptest! {
    #[test]
    fn any_datagram_is_read_or_refused(
        start in 0_usize..=40,
        rest in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let _ = parse_binding_request(&[&REQUEST[..start], &rest].concat());
    }
}
