//! `preauth_keys`: how the secrets of keys are stored, and how long revoked ones are kept.

use std::time::Duration;

use crate::finding::Report;
use crate::key::section;

/// Argon2's least memory with one lane, in KiB (RFC 9106 section 3.1).
const MEMORY_KIB_MIN: u32 = 8;

/// The most memory one verification may take, in KiB: 1 GiB.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;

/// The most passes over that memory.
const ITERATIONS_MAX: u32 = 1_000;

section! {
    /// Preauth keys, and what they share with API keys.
    pub struct PreauthKeys {
        /// How long a revoked key is still listed, a duration; 0 for ever.
        pub revoked_retention: Duration = "preauth_keys.revoked_retention", "7d";
    }
    sections {
        /// The cost of verifying a key.
        pub argon2: Argon2Cost;
    }
}

section! {
    /// The cost of verifying a preauth or API key by argon2id with one lane.
    ///
    /// The default takes about a millisecond: secrets are random, so that the cost only has to make
    /// guessing in bulk useless. Other costs apply to keys made from then on.
    pub struct Argon2Cost {
        /// Memory that verifying a key takes, in KiB, from 8 to 1048576.
        pub memory_kib: u32 = "preauth_keys.argon2.memory_kib", "2048";
        /// Passes over that memory, from 1 to 1000.
        pub iterations: u32 = "preauth_keys.argon2.iterations", "1";
    }
}

impl PreauthKeys {
    pub(crate) fn check(&self, report: &mut Report) {
        if !(MEMORY_KIB_MIN..=MEMORY_KIB_MAX).contains(&self.argon2.memory_kib) {
            let message = format!("must be from {MEMORY_KIB_MIN} to {MEMORY_KIB_MAX}");
            report.error("preauth_keys.argon2.memory_kib", message);
        }
        if !(1..=ITERATIONS_MAX).contains(&self.argon2.iterations) {
            let message = format!("must be from 1 to {ITERATIONS_MAX}");
            report.error("preauth_keys.argon2.iterations", message);
        }
    }
}
