//! Laws that are tried with many seeds: each is a test of its own that the seed alone decides.
//!
//! `PROPTEST_CASES` says how many seeds are tried, as for all property tests.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// How many seeds are tried: as many as somebody asks for, or so many by default.
#[expect(
    clippy::disallowed_methods,
    reason = "it is about the run of the tests, not configuration"
)]
pub fn cases(by_default: u64) -> u64 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(by_default)
}

/// The seeds to try, those that failed once first.
pub fn seeds(by_default: u64, failed_once: &[u64]) -> impl Iterator<Item = u64> {
    failed_once.iter().copied().chain(0..cases(by_default))
}

/// Tries a law, which panics where it is broken, with [`seeds`].
///
/// # Panics
/// With the seeds that fail.
pub fn check(by_default: u64, failed_once: &[u64], law: impl Fn(u64)) {
    let fails = |seed: &u64| catch_unwind(AssertUnwindSafe(|| law(*seed))).is_err();
    let failed: Vec<u64> = seeds(by_default, failed_once).filter(fails).collect();
    assert!(failed.is_empty(), "{} seeds failed: {failed:?}", failed.len());
}
