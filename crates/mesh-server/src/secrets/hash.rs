//! Argon2id in PHC form.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use mesh_model::SecretHash;
use thiserror::Error;

/// Salt, in bytes: what the PHC string specification recommends.
pub(super) const SALT_BYTES: usize = 16;

/// What computing one hash costs.
///
/// The secrets are random, so the cost need not slow down a guesser; it makes a stolen database worth
/// nothing in bulk. Each stored hash names its own cost, so a change takes effect for keys minted later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashCost(Params);

/// The cost is outside of what argon2 allows: at least 8 KiB and one iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("argon2 needs at least 8 KiB of memory and 1 iteration")]
pub struct InvalidCost;

impl HashCost {
    /// Memory in KiB, and how many times all of it is gone through.
    pub fn new(memory_kib: u32, iterations: u32) -> Result<Self, InvalidCost> {
        Params::new(memory_kib, iterations, 1, None).map(Self).map_err(|_| InvalidCost)
    }
}

/// Hashes a secret.
pub(super) fn hash(secret: &str, salt: &[u8; SALT_BYTES], cost: &HashCost) -> SecretHash {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, cost.0.clone());
    let hash: PasswordHash = argon2
        .hash_password_with_salt(secret.as_bytes(), salt)
        .expect("invariant: lengths and cost are within bounds");
    SecretHash(hash.to_string())
}

/// Whether a hash was made of this secret. Costs the same either way; a hash that cannot be read matches
/// nothing.
pub(super) fn matches(secret: &str, hash: &SecretHash) -> bool {
    PasswordHash::new(&hash.0)
        .is_ok_and(|hash| Argon2::default().verify_password(secret.as_bytes(), &hash).is_ok())
}
