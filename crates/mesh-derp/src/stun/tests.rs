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
fn request_of_a_client_is_written_and_read() {
    assert_eq!(encode_binding_request(&TRANSACTION), REQUEST);
    assert_eq!(parse_binding_request(&REQUEST), Ok(TRANSACTION));
}

#[test]
fn request_that_is_far_too_long_is_none() {
    let padded = |bytes: u16| {
        let mut datagram = REQUEST[..32].to_vec();
        datagram.extend([[0x80, 0x00], (bytes - 44).to_be_bytes()].concat());
        datagram.resize(usize::from(bytes) - 8, 0);
        datagram[2..4].copy_from_slice(&(bytes - 20).to_be_bytes());
        let fingerprint = fingerprint(&datagram);
        datagram.extend([0x80, 0x28, 0x00, 0x04]);
        datagram.extend(fingerprint);
        parse_binding_request(&datagram)
    };
    assert_eq!(padded(512), Ok(TRANSACTION));
    assert_eq!(padded(516), Err(StunError::NotBindingRequest));
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

/// A response with these attributes; each has a number, and a value of a multiple of four bytes.
fn response(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let attributes: Vec<u8> = attributes
        .iter()
        .flat_map(|(number, value)| {
            let bytes = u16::try_from(value.len()).expect("a short value");
            [number.to_be_bytes().as_slice(), &bytes.to_be_bytes(), value].concat()
        })
        .collect();
    let bytes = u8::try_from(attributes.len()).expect("short attributes");
    let header = [BINDING_RESPONSE.as_slice(), &[0, bytes], &MAGIC_COOKIE, &TRANSACTION].concat();
    [header, attributes].concat()
}

/// 192.0.2.1:32853, masked.
const XOR_MAPPED: &[u8] = &[0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43];
/// 198.51.100.7:80, as it is.
const MAPPED: &[u8] = &[0, 1, 0, 80, 198, 51, 100, 7];

fn check_address(datagram: &[u8], expected: Result<&str, StunError>) {
    let expected = expected.map(|address| (TRANSACTION, address.parse().expect("address")));
    assert_eq!(parse_binding_response(datagram), expected, "{datagram:02x?}");
}

#[test]
fn response_is_read_whichever_way_it_tells_the_address() {
    let masked = Ok("192.0.2.1:32853");
    check_address(&response(&[(0x0020, XOR_MAPPED)]), masked);
    check_address(&response(&[(0x8020, XOR_MAPPED)]), masked);
    check_address(&response(&[(0x0001, MAPPED)]), Ok("198.51.100.7:80"));
    check_address(&response(&[(0x0001, MAPPED), (0x0020, XOR_MAPPED)]), masked);
    check_address(&response(&[(0x0020, XOR_MAPPED), (0x0001, MAPPED)]), masked);
    // What comes twice counts once, and what cannot be read does not count.
    check_address(&response(&[(0x0020, XOR_MAPPED), (0x0020, MAPPED)]), masked);
    check_address(&response(&[(0x0020, &[0; 8]), (0x0020, XOR_MAPPED)]), masked);
    check_address(&response(&[(0x8022, b"server 1"), (0x0020, XOR_MAPPED)]), masked);

    let ipv6 = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let mapped = |address: &[u8]| response(&[(0x0001, &[&[0, 2, 0, 80], address].concat())]);
    check_address(&mapped(&ipv6), Ok("[2001:db8::1]:80"));
    let from_ipv4 = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1];
    check_address(&mapped(&from_ipv4), Ok("192.0.2.1:80"));
}

#[test]
fn attribute_with_padding_and_bytes_behind_the_message_are_skipped() {
    let mut datagram = response(&[(0x8022, b"abc\0"), (0x0020, XOR_MAPPED)]);
    datagram[HEADER_BYTES + 3] = 3;
    check_address(&datagram, Ok("192.0.2.1:32853"));
    check_address(&[&datagram[..], b"abc"].concat(), Ok("192.0.2.1:32853"));
}

#[test]
fn what_is_no_response_is_told_apart() {
    let check = |change: fn(&mut Vec<u8>), expected: StunError| {
        let mut datagram = response(&[(0x0020, XOR_MAPPED)]);
        change(&mut datagram);
        check_address(&datagram, Err(expected));
    };
    check(Vec::clear, StunError::NotBindingResponse);
    check(|datagram| datagram.truncate(19), StunError::NotBindingResponse);
    check(|datagram| *datagram = REQUEST.to_vec(), StunError::NotBindingResponse);
    check(|datagram| datagram[1] = 0x11, StunError::NotBindingResponse);
    check(|datagram| datagram[7] ^= 1, StunError::NotBindingResponse);
    check(|datagram| datagram.truncate(31), StunError::Attributes);
    check(|datagram| datagram[3] = 11, StunError::Attributes);
    check(|datagram| datagram[23] = 9, StunError::Attributes);
    check(|datagram| datagram[3] = 0, StunError::Address);
    check(|datagram| datagram[21] = 0x21, StunError::Address);
    check(|datagram| datagram[23] = 7, StunError::Address);
    check(|datagram| datagram[25] = 2, StunError::Address);
    check(|datagram| datagram[25] = 3, StunError::Address);
}

proptest! {
    #[test]
    fn any_datagram_is_read_or_refused(
        start in 0_usize..=40,
        rest in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let _ = parse_binding_request(&[&REQUEST[..start], &rest].concat());
        let mut response = response(&[(0x0020, XOR_MAPPED), (0x0001, MAPPED)]);
        response.truncate(start);
        let _ = parse_binding_response(&[response, rest].concat());
    }

    #[test]
    fn what_a_server_answers_is_what_the_client_reads(
        transaction: TransactionId,
        ip: IpAddr,
        port: u16,
    ) {
        let request = encode_binding_request(&transaction);
        prop_assert_eq!(parse_binding_request(&request), Ok(transaction));
        let response = encode_binding_response(&transaction, SocketAddr::new(ip, port));
        let address = SocketAddr::new(ip.to_canonical(), port);
        prop_assert_eq!(parse_binding_response(&response), Ok((transaction, address)));
    }
}
