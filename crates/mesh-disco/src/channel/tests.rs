use std::net::{IpAddr, SocketAddr};

use mesh_keys::NodePublic;
use proptest::prelude::*;

use super::*;
use crate::{ENDPOINTS_MAX, TransactionId};

const NONCE: [u8; NONCE_BYTES] = [9; NONCE_BYTES];

/// Node 1's ping for node 2, as tailscale v1.102.5 and its NaCl box (Go) write it.
#[rustfmt::skip]
const PING: [u8; 124] = [
    b'T', b'S', 0xf0, 0x9f, 0x92, 0xac, // magic
    // sender's key
    0xa4, 0xe0, 0x92, 0x92, 0xb6, 0x51, 0xc2, 0x78, 0xb9, 0x77, 0x2c, 0x56, 0x9f, 0x5f, 0xa9, 0xbb,
    0x13, 0xd9, 0x06, 0xb4, 0x6a, 0xb6, 0x8c, 0x9d, 0xf9, 0xdc, 0x2b, 0x44, 0x09, 0xf8, 0xa2, 0x09,
    // nonce
    9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9,
    // authenticator
    0x4d, 0xad, 0xfb, 0x30, 0xfd, 0xc8, 0xe2, 0x57, 0x00, 0xe1, 0x98, 0xf4, 0xb6, 0xfa, 0xef, 0x5d,
    // sealed: type, version, transaction, node key
    0x0d, 0x0d, 0xc9, 0x91, 0xd6, 0x38, 0x1b, 0x8d, 0x2b, 0xc4, 0x16, 0x7c, 0xc1, 0x66, 0xd0, 0x9c,
    0xf3, 0x5d, 0xa7, 0xee, 0x6a, 0x6f, 0xb3, 0xef, 0x4d, 0xc8, 0x12, 0x70, 0x79, 0x42, 0x72, 0xde,
    0x08, 0xaf, 0xcb, 0xc9, 0x9e, 0xef, 0x51, 0x97, 0x14, 0x9f, 0xc5, 0x57, 0xb4, 0x63,
];

fn key(byte: u8) -> DiscoPrivate {
    DiscoPrivate::from_bytes([byte; KEY_BYTES])
}

/// The channel of the node with the first key to the node with the second.
fn channel(own: u8, peer: u8) -> Channel {
    Channel::new(&key(own), &key(peer).public()).expect("an ordinary key")
}

fn seal(channel: &Channel, message: &Message) -> Vec<u8> {
    let mut datagram = Vec::new();
    channel.seal(message, NONCE, &mut datagram);
    datagram
}

fn ping() -> Message {
    Message::Ping {
        transaction: TransactionId([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        node_key: Some(NodePublic::from_bytes([0xaa; KEY_BYTES])),
        padding_bytes: 0,
    }
}

/// Checks what node 2 makes of node 1's ping after a change to the datagram.
fn check_changed(change: impl Fn(&mut Vec<u8>), expected: DiscoError) {
    let mut datagram = seal(&channel(1, 2), &ping());
    change(&mut datagram);
    assert_eq!(channel(2, 1).open(&datagram), Err(expected));
}

#[test]
fn sealed_ping_is_these_bytes() {
    assert_eq!(seal(&channel(1, 2), &ping()), PING);
}

#[test]
fn the_peer_and_nobody_else_opens_what_was_sealed() {
    let datagram = seal(&channel(1, 2), &ping());
    assert_eq!(channel(2, 1).open(&datagram), Ok(ping()));
    assert_eq!(channel(3, 1).open(&datagram), Err(DiscoError::Seal));
    assert_eq!(channel(2, 3).open(&datagram), Err(DiscoError::Sender));
}

#[test]
fn changed_datagrams_are_refused() {
    check_changed(Vec::clear, DiscoError::NotDisco);
    check_changed(|datagram| datagram[5] ^= 1, DiscoError::NotDisco);
    check_changed(|datagram| datagram.truncate(HEADER_BYTES - 1), DiscoError::NotDisco);
    check_changed(|datagram| datagram.truncate(HEADER_BYTES), DiscoError::Seal);
    check_changed(|datagram| datagram.truncate(OVERHEAD_BYTES), DiscoError::Seal);
    check_changed(|datagram| datagram.push(0), DiscoError::Seal);
    check_changed(|datagram| datagram.resize(DATAGRAM_BYTES_MAX, 0), DiscoError::Seal);
    check_changed(|datagram| datagram.resize(DATAGRAM_BYTES_MAX + 1, 0), DiscoError::TooLong);
}

/// Curve25519 ignores the top bit of a key: another name for the sender, with which the box would open.
#[test]
fn sender_with_the_ignored_bit_set_is_another_sender() {
    check_changed(|datagram| datagram[MAGIC.len() + KEY_BYTES - 1] |= 0x80, DiscoError::Sender);
}

#[test]
fn sealed_message_that_is_not_understood_is_told_apart() {
    let [ours, theirs] = [channel(1, 2), channel(2, 1)];
    let sealed = theirs.shared.encrypt(&NONCE.into(), &[4, 0, 7][..]).expect("a box");
    let header = [MAGIC.as_slice(), theirs.own.as_bytes(), &NONCE];
    let datagram = [header.concat(), sealed].concat();
    assert_eq!(ours.open(&datagram), Err(DiscoError::UnknownType(4)));
}

/// Not a wish, but what NaCl boxes do: the reason why a ping's node key has to be looked at.
#[test]
fn own_message_opens_when_it_is_sent_back_under_the_name_of_the_peer() {
    let ours = channel(1, 2);
    let mut datagram = seal(&ours, &ping());
    datagram[MAGIC.len()..][..KEY_BYTES].copy_from_slice(key(2).public().as_bytes());
    assert_eq!(ours.open(&datagram), Ok(ping()));
}

#[test]
fn disco_is_told_from_other_datagrams() {
    let mut datagram = seal(&channel(1, 2), &ping());
    assert_eq!(sender(&datagram), Some(key(1).public()));
    datagram.truncate(HEADER_BYTES);
    assert!(is_disco(&datagram));
    assert!(!is_disco(&datagram[..HEADER_BYTES - 1]));
    datagram[0] = 1;
    assert!(!is_disco(&datagram));
    assert_eq!(sender(&datagram), None);
}

/// All seven encodings of points of low order, but for the top bit: 0, 1, two of order eight, -1, and once more
/// 0 and 1, not reduced.
///
/// Source: D. J. Bernstein, cr.yp.to/ecdh.html, "How do I validate Curve25519 public keys?".
#[test]
fn key_with_which_anybody_could_seal_is_refused() {
    let order_eight = [
        [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f,
            0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16,
            0x5f, 0x49, 0xb8, 0x00,
        ],
        [
            0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83,
            0xef, 0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd,
            0xd0, 0x9f, 0x11, 0x57,
        ],
    ];
    let point = |first, middle, last| {
        let mut bytes = [middle; KEY_BYTES];
        bytes[0] = first;
        bytes[KEY_BYTES - 1] = last;
        bytes
    };
    let small = [0, 1].map(|first| point(first, 0, 0));
    let near_prime = [0xec, 0xed, 0xee].map(|first| point(first, 0xff, 0x7f));
    for mut bytes in [&small[..], &order_eight, &near_prime].concat() {
        for top_bit in [0, 0x80] {
            bytes[KEY_BYTES - 1] |= top_bit;
            let peer = DiscoPublic::from_bytes(bytes);
            assert!(Channel::new(&key(7), &peer).is_none(), "{bytes:02x?}");
        }
    }
    assert!(Channel::new(&key(7), &DiscoPublic::from_bytes(point(2, 0, 0))).is_some());
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    any::<(IpAddr, u16)>().prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
}

fn messages() -> impl Strategy<Value = Message> {
    let transaction = any::<[u8; 12]>().prop_map(TransactionId);
    let node_key = prop::option::of(any::<[u8; KEY_BYTES]>().prop_map(NodePublic::from_bytes))
        .prop_map(|node_key| node_key.and_then(NodePublic::non_zero));
    let endpoints = prop::collection::vec(addresses(), 0..=ENDPOINTS_MAX);
    prop_oneof![
        (transaction.clone(), node_key, 0_usize..3000).prop_map(
            |(transaction, node_key, padding_bytes)| Message::Ping {
                transaction,
                node_key,
                padding_bytes
            }
        ),
        (transaction, addresses())
            .prop_map(|(transaction, src)| Message::Pong { transaction, src }),
        endpoints.prop_map(|endpoints| Message::CallMeMaybe { endpoints }),
    ]
}

proptest! {
    #[test]
    fn every_message_arrives_as_it_was_sent(message in messages(), nonce: [u8; NONCE_BYTES]) {
        let mut datagram = Vec::new();
        channel(1, 2).seal(&message, nonce, &mut datagram);
        prop_assert!(datagram.len() <= DATAGRAM_BYTES_MAX);
        prop_assert_eq!(sender(&datagram), Some(key(1).public()));
        prop_assert_eq!(channel(2, 1).open(&datagram), Ok(message));
    }

    #[test]
    fn one_flipped_bit_is_noticed(message in messages(), at: prop::sample::Index, bit in 0_u32..8) {
        let mut datagram = seal(&channel(1, 2), &message);
        let at = at.index(datagram.len());
        datagram[at] ^= 1 << bit;
        prop_assert!(channel(2, 1).open(&datagram).is_err());
    }

    #[test]
    fn any_datagram_is_opened_or_refused(
        start in 0..=OVERHEAD_BYTES,
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let honest = seal(&channel(1, 2), &ping());
        let datagram = [&honest[..start], &rest].concat();
        let _ = (is_disco(&datagram), sender(&datagram), channel(2, 1).open(&datagram));
    }
}
