//! Logins that prove nothing.

use mesh_keys::NodePublic;
use mesh_relay::Refusal;

use super::{Scene, login, write_until_hung_up_on};
use crate::client::{node, open};

/// Where the client's key stands in its login.
const KEY: std::ops::Range<usize> = 5..37;

/// Points of low order on Curve25519, with whose boxes everybody can seal: 0, 1, the two of order 8, and the prime
/// less one, the prime and the prime plus one, which mean the first of them again.
const LOW_ORDER: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

#[tokio::test]
async fn logins_that_prove_no_key_are_refused() {
    let mut scene = Scene::new().await;
    let honest = login(&scene.relay, 66);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = honest.clone();
        change(&mut bytes);
        bytes
    };
    let logins = [
        with(&|bytes| bytes[KEY].copy_from_slice(node(2).public().as_bytes())), // stolen
        with(&|bytes| bytes[40] ^= 1),                                          // another nonce
        with(&|bytes| bytes[70] ^= 1),                                          // tampered with
        with(&|bytes| bytes[0] = 0x04), // a packet before the login
        vec![0x04, 0, 0, 0, 32],        // the same
        vec![0x02, 0, 0, 0, 71],        // too short for a key and a box
        vec![0x02, 0, 5, 0, 0],         // too long
        vec![0x02, 0xff, 0xff, 0xff, 0xff], // four gigabytes
        b"GET / HTTP/1.1\r\n".to_vec(),
    ];
    for (refused, bytes) in (1..).zip(logins) {
        write_until_hung_up_on(open(&scene.relay, 4096), &bytes).await;
        scene.expect_refused(Refusal::Login, refused).await;
    }
}

#[tokio::test]
async fn keys_that_prove_nothing_are_refused() {
    let mut scene = Scene::new().await;
    let mut refused = 0;
    for point in LOW_ORDER {
        for top_bit in [0, 0x80] {
            let mut bytes = login(&scene.relay, 66);
            let key = data_encoding::HEXLOWER.decode(point.as_bytes()).expect("digits");
            bytes[KEY].copy_from_slice(&key);
            bytes[KEY.end - 1] |= top_bit;
            write_until_hung_up_on(open(&scene.relay, 4096), &bytes).await;
            refused += 1;
            scene.expect_refused(Refusal::Login, refused).await;
            let key = NodePublic::from_bytes(bytes[KEY].try_into().expect("a key"));
            assert!(!scene.relay.is_connected(&key));
        }
    }
}
