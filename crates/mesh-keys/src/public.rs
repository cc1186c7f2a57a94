//! Public keys: 32 bytes, a prefix, and no way to confuse two kinds.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use crate::KEY_BYTES;

/// Why a key's text was refused. The text itself is not repeated: it may be a secret in the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ParseKeyError {
    /// The text does not start with the prefix of this kind of key.
    #[error("key does not start with `{expected}`")]
    Prefix {
        /// The prefix of the kind of key that was asked for.
        expected: &'static str,
    },
    /// What follows the prefix is not 64 hexadecimal digits.
    #[error("key is not 64 hexadecimal digits after its prefix")]
    Hex,
}

pub(crate) fn parse_hex(
    text: &str,
    prefix: &'static str,
) -> Result<[u8; KEY_BYTES], ParseKeyError> {
    let hex = text.strip_prefix(prefix).ok_or(ParseKeyError::Prefix { expected: prefix })?;
    let mut bytes = [0; KEY_BYTES];
    if hex.len() != 2 * KEY_BYTES {
        return Err(ParseKeyError::Hex);
    }
    data_encoding::HEXLOWER_PERMISSIVE
        .decode_mut(hex.as_bytes(), &mut bytes)
        .map_err(|_| ParseKeyError::Hex)?;
    Ok(bytes)
}

macro_rules! public_key {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name([u8; KEY_BYTES]);

        impl $name {
            /// The start of this key's text form.
            pub const PREFIX: &'static str = $prefix;

            /// Takes the key's 32 bytes as they are.
            pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
                Self(bytes)
            }

            /// The key's 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; KEY_BYTES] {
                &self.0
            }

            /// Whether this is the all-zero key, which clients send for "no key".
            pub fn is_zero(&self) -> bool {
                self.0 == [0; KEY_BYTES]
            }

            /// The key, or `None` for the all-zero key.
            pub fn non_zero(self) -> Option<Self> {
                (!self.is_zero()).then_some(self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            /// The first eight digits: enough to tell keys apart in a log.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}…", $prefix, HEXLOWER.encode(&self.0[..4]))
            }
        }

        impl FromStr for $name {
            type Err = ParseKeyError;

            fn from_str(text: &str) -> Result<Self, ParseKeyError> {
                parse_hex(text, $prefix).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            /// Reads the text form; the empty text is the all-zero key, as Go clients mean it.
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                if text.is_empty() {
                    return Ok(Self::default());
                }
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

public_key!(
    /// Identifies a node to its peers: the WireGuard public key. Changes when the node logs in again.
    NodePublic,
    "nodekey:"
);
public_key!(
    /// Identifies an installation to the control server: the static key of its Noise channel.
    MachinePublic,
    "mkey:"
);
public_key!(
    /// Identifies a running client in NAT traversal. New at every start of the client.
    DiscoPublic,
    "discokey:"
);
public_key!(
    /// The challenge in the early payload of a Noise channel.
    ChallengePublic,
    "chalpub:"
);
public_key!(
    /// A node's tailnet-lock key. Stored, not interpreted.
    NetworkLockPublic,
    "nlpub:"
);
