//! Ids, bytes as text, and texts that nobody shall see.

use std::convert::Infallible;
use std::fmt;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize, Serializer};

use crate::codec::{leaf, text};

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident($number:ty);)*) => {$(
        $(#[$doc])*
        ///
        /// A JSON number, a decimal text where it is a map key. Zero is "none".
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $number);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        leaf! { $name, |id| id.0 == 0; }
    )*};
}

id! {
    /// A node, unique for ever in the life of its tailnet. Below 2^53, as a number of JavaScript.
    NodeId(u64);
    /// A user. Below 2^53.
    UserId(u64);
    /// A user's login at one identity provider. Below 2^53.
    LoginId(u64);
    /// A DERP region; 900 to 999 are set aside for own use. Go takes 53 bits, the Rust client 32.
    DerpRegionId(u32);
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

/// A text that opens doors, such as a preauth key. Its `Debug` does not show it.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct SecretText(pub String);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

text! {
    Base64, |text| BASE64.decode(text.as_bytes()).map(|bytes| Some(Self(bytes))), |it| it.0.is_empty();
    SecretText, |text| Ok::<_, Infallible>(Some(Self(text.to_owned()))), |it| it.0.is_empty();
}
