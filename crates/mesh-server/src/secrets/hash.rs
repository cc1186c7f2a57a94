//! Argon2id in PHC form.

use std::sync::{Mutex, MutexGuard, PoisonError};

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use mesh_model::SecretHash;
use thiserror::Error;

/// Salt, in bytes: what the PHC string specification recommends.
pub(super) const SALT_BYTES: usize = 16;

/// Largest piece of memory that is kept, in KiB.
const BLOCKS_KEPT_MAX: usize = 8 << 10;

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

/// Memory for hashes to go through. Having the system hand out and take back megabytes for each hash costs as much as
/// the hash, so a few pieces are kept.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Vec<Vec<Block>>>);

impl Memory {
    /// Whether a hash was made of this secret. Costs the same either way; a hash that cannot be read matches nothing.
    pub(super) fn matches(&self, secret: &str, hash: &SecretHash) -> bool {
        let mut blocks = self.pieces().pop().unwrap_or_default();
        let verdict = compare(secret, hash, &mut blocks).unwrap_or(false);
        if blocks.len() <= BLOCKS_KEPT_MAX {
            self.pieces().push(blocks);
        }
        verdict
    }

    /// As many as there were hashes at once, and nothing under the lock panics half-way.
    fn pieces(&self) -> MutexGuard<'_, Vec<Vec<Block>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None` if the hash cannot be read.
fn compare(secret: &str, hash: &SecretHash, memory: &mut Vec<Block>) -> Option<bool> {
    let stored = PasswordHash::new(&hash.0).ok()?;
    let (salt, output) = (stored.salt?, stored.hash?);
    let algorithm = Algorithm::new(stored.algorithm.as_str()).ok()?;
    let version = stored.version.map_or(Ok(Version::V0x13), Version::try_from).ok()?;
    let params = Params::try_from(&stored).ok()?;
    let blocks = params.block_count();
    if memory.len() < blocks {
        memory.resize(blocks, Block::new());
    }
    let mut computed = vec![0; output.len()];
    Argon2::new(algorithm, version, params)
        .hash_password_into_with_memory(
            secret.as_bytes(),
            &salt,
            &mut computed,
            &mut memory[..blocks],
        )
        .ok()?;
    // `Output` compares in constant time.
    Some(Output::new(&computed).ok()? == output)
}
