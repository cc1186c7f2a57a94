//! Ids and small scalars of the wire.

use std::fmt;

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::codec::leaf;

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// A JSON number below 2^53; a decimal text where it is a map key. Zero is "none".
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        leaf! { $name, |id| id.0 == 0; }
    )*};
}

id! {
    /// A node, unique for ever in the life of its tailnet.
    NodeId;
    /// A user.
    UserId;
    /// A user's login at one identity provider.
    LoginId;
    /// A DERP region; 900 to 999 are set aside for own use.
    DerpRegionId;
}

/// Bytes that go as standard base64 with padding, such as a tailnet-lock signature; none are `null`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64({} bytes)", self.0.len())
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0.is_empty() {
            return to.serialize_none();
        }
        to.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Option::<String>::deserialize(from)?.unwrap_or_default();
        BASE64.decode(text.as_bytes()).map(Self).map_err(de::Error::custom)
    }
}

leaf! { Base64, |bytes| bytes.0.is_empty(); }
