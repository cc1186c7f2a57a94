//! Private keys: generated from the operating system's randomness, redacted, wiped on drop.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::public::parse_hex;
use crate::{DiscoPublic, KEY_BYTES, MachinePublic, NodePublic, ParseKeyError};

/// Prefix of every private key's text form, in files only: it is never sent.
const PREFIX: &str = "privkey:";

macro_rules! private_key {
    ($(#[$doc:meta])* $name:ident, $public:ident) => {
        $(#[$doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; KEY_BYTES]);

        impl $name {
            /// Makes a new key from the operating system's randomness.
            ///
            /// # Errors
            /// When the operating system has none to give.
            pub fn generate() -> Result<Self, getrandom::Error> {
                let mut bytes = [0; KEY_BYTES];
                getrandom::fill(&mut bytes)?;
                Ok(Self::from_bytes(bytes))
            }

            /// Takes 32 random bytes as a key, clamped as Curve25519 wants them.
            pub const fn from_bytes(mut bytes: [u8; KEY_BYTES]) -> Self {
                bytes[0] &= 248;
                bytes[31] = (bytes[31] & 127) | 64;
                Self(bytes)
            }

            /// The secret bytes, for the cryptography that needs them.
            pub const fn expose_bytes(&self) -> &[u8; KEY_BYTES] {
                &self.0
            }

            /// The secret in its text form, for the file it is kept in.
            pub fn expose_text(&self) -> String {
                format!("{PREFIX}{}", HEXLOWER.encode(&self.0))
            }

            /// The public half.
            pub fn public(&self) -> $public {
                let secret = StaticSecret::from(self.0);
                $public::from_bytes(PublicKey::from(&secret).to_bytes())
            }
        }

        impl FromStr for $name {
            type Err = ParseKeyError;

            fn from_str(text: &str) -> Result<Self, ParseKeyError> {
                parse_hex(text, PREFIX).map(Self::from_bytes)
            }
        }

        impl PartialEq for $name {
            /// Compares in constant time.
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "(redacted)"))
            }
        }
    };
}

private_key!(
    /// A machine's private key; the server's Noise key is one too.
    MachinePrivate,
    MachinePublic
);
private_key!(
    /// A node's private key; the key of a relay's clients.
    NodePrivate,
    NodePublic
);
private_key!(
    /// A relay's private key. Its public half travels as a node key in DERP frames.
    DerpPrivate,
    NodePublic
);
private_key!(
    /// A running client's private key of NAT traversal.
    DiscoPrivate,
    DiscoPublic
);
