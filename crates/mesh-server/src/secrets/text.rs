//! The text form of keys.

use std::fmt;

use data_encoding::BASE32_NOPAD;
use mesh_state::NewSecret;
use thiserror::Error;

use super::hash::{self, HashCost, SALT_BYTES};

/// Characters of the part that names a key: 60 random bits.
const PUBLIC_ID_CHARS: usize = 12;

/// Bytes of a secret.
const SECRET_BYTES: usize = 32;

/// Characters of a secret in base32.
const SECRET_CHARS: usize = 52;

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// It registers nodes.
    Preauth,
    /// It opens the admin API.
    Api,
}

impl KeyKind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Preauth => "tskey-auth-",
            Self::Api => "tskey-api-",
        }
    }

    /// A key as it is shown: named, without its secret.
    pub fn masked(self, public_id: &str) -> String {
        format!("{}{public_id}-***", self.prefix())
    }

    /// The public id in a key's masked form, or in itself.
    pub fn unmask(self, text: &str) -> &str {
        let text = text.strip_prefix(self.prefix()).unwrap_or(text);
        text.strip_suffix("-***").unwrap_or(text)
    }
}

/// A well-formed key, taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyText<'a> {
    pub(super) public_id: &'a str,
    pub(super) secret: &'a str,
}

impl<'a> KeyText<'a> {
    /// Takes a key apart if it is exactly of the form that [`mint`] gives.
    pub(super) fn parse(kind: KeyKind, text: &'a str) -> Option<Self> {
        let (public_id, secret) = text.strip_prefix(kind.prefix())?.split_once('-')?;
        let well_formed = is_base32(public_id, PUBLIC_ID_CHARS) && is_base32(secret, SECRET_CHARS);
        well_formed.then_some(Self { public_id, secret })
    }
}

fn is_base32(text: &str, chars: usize) -> bool {
    text.len() == chars && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
}

fn base32(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

/// A key that was just made: the only time its text exists.
#[derive(Clone, PartialEq, Eq)]
pub struct Minted {
    /// The whole key, to be shown once and kept nowhere.
    pub text: String,
    /// What is kept of it.
    pub secret: NewSecret,
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minted").field("secret", &self.secret).finish_non_exhaustive()
    }
}

/// Why no key was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MintError {
    /// The operating system has no randomness to give.
    #[error("the operating system gives no randomness")]
    Randomness(#[from] getrandom::Error),
    /// Too many hashes wait to be computed.
    #[error("too many keys are being made or verified: try again in a moment")]
    Busy,
}

/// Makes a key of 256 random bits. Computes one hash, so it blocks for about as long as `cost` says.
pub fn mint(kind: KeyKind, cost: &HashCost) -> Result<Minted, MintError> {
    let mut public_id = [0; PUBLIC_ID_CHARS];
    let mut secret = [0; SECRET_BYTES];
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut public_id)?;
    getrandom::fill(&mut secret)?;
    getrandom::fill(&mut salt)?;
    let mut public_id = base32(&public_id);
    public_id.truncate(PUBLIC_ID_CHARS);
    let secret = base32(&secret);
    Ok(Minted {
        text: format!("{}{public_id}-{secret}", kind.prefix()),
        secret: NewSecret { public_id, hash: hash::hash(&secret, &salt, cost) },
    })
}
