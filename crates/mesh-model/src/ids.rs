//! Ids as distinct types. Numbers are given once and never again, also after deletion.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

macro_rules! numeric_id {
    ($(#[$doc:meta])* $name:ident, $number:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $number);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

numeric_id!(
    /// One tailnet of this server.
    TailnetId,
    u64
);
numeric_id!(
    /// A node. 32 bits, so that a set of nodes is a roaring bitmap of their ids.
    NodeId,
    u32
);
numeric_id!(
    /// A user.
    UserId,
    u64
);
numeric_id!(
    /// A preauth key's row.
    PreauthKeyId,
    u64
);
numeric_id!(
    /// An API key's row.
    ApiKeyId,
    u64
);
numeric_id!(
    /// A version of the policy's text.
    PolicyVersionId,
    u64
);
numeric_id!(
    /// One map stream's claim on a node: the highest one holds it.
    SessionId,
    u64
);

impl UserId {
    /// The user that tagged nodes are shown to belong to. It has no row.
    ///
    /// Source: headscale `types/users.go`, whose clients know this number.
    pub const TAGGED_DEVICES: Self = Self(2_147_455_555);
}

/// Names a login that waits for approval: unguessable, so whoever has it may ask about it.
///
/// Text form: `mcreq-` and 32 characters of `a-z2-7` (160 random bits).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AuthId(String);

/// The text is not an auth id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not an auth id: it reads `mcreq-` and 32 letters or digits, as the login page shows it")]
pub struct ParseAuthIdError;

impl AuthId {
    const PREFIX: &'static str = "mcreq-";
    const RANDOM_BYTES: usize = 20;
    const DIGITS: &'static [u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

    /// Makes an id from random bytes.
    pub fn from_random(bytes: [u8; Self::RANDOM_BYTES]) -> Self {
        let mut text = String::from(Self::PREFIX);
        for chunk in bytes.chunks_exact(5) {
            let bits = chunk.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            for shift in (0..8).rev() {
                text.push(char::from(Self::DIGITS[(bits >> (shift * 5) & 31) as usize]));
            }
        }
        Self(text)
    }

    /// The whole id. It is a credential: do not log it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AuthId {
    type Err = ParseAuthIdError;

    fn from_str(text: &str) -> Result<Self, ParseAuthIdError> {
        let random = text.strip_prefix(Self::PREFIX).ok_or(ParseAuthIdError)?;
        let well_formed = random.len() == Self::RANDOM_BYTES * 8 / 5
            && random.bytes().all(|byte| Self::DIGITS.contains(&byte));
        if well_formed { Ok(Self(text.to_owned())) } else { Err(ParseAuthIdError) }
    }
}

impl TryFrom<String> for AuthId {
    type Error = ParseAuthIdError;

    fn try_from(text: String) -> Result<Self, ParseAuthIdError> {
        text.parse()
    }
}

impl From<AuthId> for String {
    fn from(id: AuthId) -> Self {
        id.0
    }
}

impl fmt::Display for AuthId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AuthId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthId({}…)", &self.0[..Self::PREFIX.len() + 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auth_id_round_trips_and_hides_itself() {
        let id = AuthId::from_random([0xa5; 20]);
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert_eq!(id.as_str().len(), 6 + 32);
        assert!(!format!("{id:?}").contains(id.as_str()));
    }

    #[test]
    fn malformed_auth_ids_are_refused() {
        for text in [
            "",
            "mcreq-",
            "mcreq-0000",
            "x",
            &"a".repeat(38),
            "mcreq-../../../../../../../../../../.",
        ] {
            assert_eq!(text.parse::<AuthId>(), Err(ParseAuthIdError), "{text}");
        }
    }
}
