//! NaCl boxes (X25519, XSalsa20-Poly1305) between the keys of a relay and of a node.

use crypto_box::aead::Aead;
use crypto_box::{PublicKey, SalsaBox, SecretKey};
use mesh_keys::{KEY_BYTES, NodePublic};

/// Bytes of a box's nonce, which stands before the sealed bytes.
pub const NONCE_BYTES: usize = 24;

/// Bytes that sealing adds to a message: nonce and authenticator.
pub(crate) const SEAL_BYTES: usize = NONCE_BYTES + 16;

/// All encodings, but for the top bit, of Curve25519 points of low order. Whatever the private key, a box
/// with one of them has a key that everybody knows.
///
/// Source: D. J. Bernstein, cr.yp.to/ecdh.html, "How do I validate Curve25519 public keys?".
const LOW_ORDER: [[u8; KEY_BYTES]; 7] = [
    small(0),
    small(1),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
    near_prime(0xec),
    near_prime(0xed),
    near_prime(0xee),
];

const fn small(first: u8) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    bytes[0] = first;
    bytes
}

/// 2^255 - 19 ends (in this little-endian form: begins) with 0xed.
const fn near_prime(first: u8) -> [u8; KEY_BYTES] {
    let mut bytes = [0xff; KEY_BYTES];
    bytes[0] = first;
    bytes[31] = 0x7f;
    bytes
}

/// The key agreed on between one private and one public key. Making it is the dear part of a login.
pub(crate) struct Channel(SalsaBox);

impl Channel {
    /// Agrees on a key; `None` if `public` is of low order, the all-zero key included.
    pub(crate) fn new(private: &[u8; KEY_BYTES], public: &NodePublic) -> Option<Self> {
        if is_low_order(public) {
            return None;
        }
        let public = PublicKey::from_bytes(*public.as_bytes());
        Some(Self(SalsaBox::new(&public, &SecretKey::from_bytes(*private))))
    }

    /// Seals `message`; the result begins with the nonce, which must never seal two messages.
    pub(crate) fn seal(&self, nonce: [u8; NONCE_BYTES], message: &[u8]) -> Vec<u8> {
        let sealed = self.0.encrypt(&nonce.into(), message);
        let sealed = sealed.expect("invariant: a box of a few hundred bytes can be sealed");
        [nonce.as_slice(), &sealed].concat()
    }

    /// Opens what [`Self::seal`] made with the other two halves of the keys.
    pub(crate) fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        self.0.decrypt(&(*nonce).into(), sealed).ok()
    }
}

fn is_low_order(public: &NodePublic) -> bool {
    let mut bytes = *public.as_bytes();
    bytes[31] &= 0x7f;
    LOW_ORDER.contains(&bytes)
}

#[cfg(test)]
mod tests {
    use mesh_keys::NodePrivate;

    use super::*;

    /// A point of low order seals with the same key for every private key: found by opening one private
    /// key's box with another's.
    #[test]
    fn every_listed_point_gives_a_key_that_everybody_knows() {
        let [ours, theirs] = [7, 8].map(|byte| SecretKey::from_bytes([byte; KEY_BYTES]));
        for point in LOW_ORDER {
            let public = PublicKey::from_bytes(point);
            let sealed = Channel(SalsaBox::new(&public, &ours)).seal([3; NONCE_BYTES], b"secret");
            let opened = Channel(SalsaBox::new(&public, &theirs)).open(&sealed);
            assert_eq!(opened.as_deref(), Some(b"secret".as_slice()), "{point:02x?}");
            let mut with_top_bit = point;
            with_top_bit[31] |= 0x80;
            for bytes in [point, with_top_bit] {
                assert!(Channel::new(&[7; KEY_BYTES], &NodePublic::from_bytes(bytes)).is_none());
            }
        }
    }

    #[test]
    fn a_box_opens_with_the_other_two_halves_only() {
        let [a, b, c] = [1, 2, 3].map(|byte| NodePrivate::from_bytes([byte; KEY_BYTES]));
        let channel = |private: &NodePrivate, public: &NodePrivate| {
            Channel::new(private.expose_bytes(), &public.public()).expect("an ordinary key")
        };
        let mut sealed = channel(&a, &b).seal([9; NONCE_BYTES], b"hello");
        assert_eq!(sealed.len(), SEAL_BYTES + 5);
        assert_eq!(channel(&b, &a).open(&sealed).as_deref(), Some(b"hello".as_slice()));
        assert_eq!(channel(&c, &a).open(&sealed), None);
        sealed[NONCE_BYTES] ^= 1;
        assert_eq!(channel(&b, &a).open(&sealed), None);
        assert_eq!(channel(&b, &a).open(&sealed[..NONCE_BYTES - 1]), None);
    }
}
