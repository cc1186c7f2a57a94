//! Preauth keys and API keys as text: minting them and verifying what is presented.
//!
//! A key reads `tskey-auth-<public id>-<secret>` or `tskey-api-<public id>-<secret>`. The public id names
//! its row; of the secret only an argon2id hash is kept. Whether a key that verifies is good for anything
//! (expiry, use, revocation) is for the caller to ask of the row, every time.

mod attempts;
mod hash;
mod pool;
mod text;
mod verified;
mod verifier;

pub use attempts::{Attempts, UNKNOWN_KEYS_MAX, WRONG_SECRETS_MAX};
pub use hash::{HashCost, InvalidCost};
pub use text::{KeyKind, MintError, Minted, mint};
pub use verifier::{Verifier, VerifyError};

#[cfg(test)]
mod tests;
