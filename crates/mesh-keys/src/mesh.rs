//! The key that the relays of one mesh share.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::KEY_BYTES;
use crate::public::parse_hex;

/// A pre-shared key of 32 bytes, by which DERP relays know each other. Whoever has it may speak for every
/// client of every relay of the mesh.
///
/// Its text form, on the wire and in files, is 64 hexadecimal digits without a prefix. The all-zero key is no
/// key: relays in Go write it for "none".
///
/// Source: tailscale `types/key/derp.go`, `DERPMesh`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MeshKey([u8; KEY_BYTES]);

/// Why a mesh key's text was refused. The text is not repeated: it is a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ParseMeshKeyError {
    /// The text is not 64 hexadecimal digits, apart from white space around them.
    #[error("mesh key is not 64 hexadecimal digits")]
    Hex,
    /// All of the digits are zero.
    #[error("mesh key is all zeros, which means that there is none")]
    Zero,
}

impl MeshKey {
    /// Takes 32 random bytes as a key; `None` if all are zero.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Option<Self> {
        (bytes != [0; KEY_BYTES]).then_some(Self(bytes))
    }

    /// Reads a field of JSON: text that is the all-zero key is `None`.
    ///
    /// # Errors
    /// When the text is anything else than 64 hexadecimal digits, the empty text included.
    pub fn deserialize_field<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Self>, D::Error> {
        match Cow::<'de, str>::deserialize(deserializer)?.parse() {
            Ok(key) => Ok(Some(key)),
            Err(ParseMeshKeyError::Zero) => Ok(None),
            Err(error @ ParseMeshKeyError::Hex) => Err(de::Error::custom(error)),
        }
    }
}

impl FromStr for MeshKey {
    type Err = ParseMeshKeyError;

    /// Reads the text form. White space around it does not count, for it comes from files.
    fn from_str(text: &str) -> Result<Self, ParseMeshKeyError> {
        let bytes = parse_hex(text.trim(), "").map_err(|_| ParseMeshKeyError::Hex)?;
        Self::from_bytes(bytes).ok_or(ParseMeshKeyError::Zero)
    }
}

impl Serialize for MeshKey {
    /// Writes the secret in its text form.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&HEXLOWER.encode(&self.0))
    }
}

impl PartialEq for MeshKey {
    /// Compares in constant time.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for MeshKey {}

impl fmt::Debug for MeshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeshKey(redacted)")
    }
}
