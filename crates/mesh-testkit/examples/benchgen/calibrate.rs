//! A fixed piece of work, half arithmetic and half memory, that no change of ours makes faster or slower.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mesh_testkit::random::Random;

/// How often a buffer of [`BUFFER_BYTES`] is hashed: about 0.2 s.
const HASHES: usize = 6_000;

/// Fits into a second-level cache.
const BUFFER_BYTES: usize = 64 * 1024;

/// How many entries go into an ordered map, and out again: about 0.3 s.
const ENTRIES: usize = 400_000;

/// Does the work and returns the CPU time of this thread that it took.
pub(crate) fn run() -> Result<Duration> {
    let before = cpu_time()?;
    let mut buffer = vec![7; BUFFER_BYTES];
    for _ in 0..HASHES {
        let hash = blake3::hash(black_box(&buffer));
        buffer[..32].copy_from_slice(hash.as_bytes());
    }
    let mut random = Random::new(1);
    let mut entries = BTreeMap::new();
    for index in 0..ENTRIES {
        entries.insert(random.below(usize::MAX), vec![index; 4]);
    }
    let total: usize = entries.into_values().map(|value| value[0]).sum();
    black_box((buffer, total));
    Ok(cpu_time()?.saturating_sub(before))
}

/// What this thread has used, as Linux counts it in nanoseconds.
fn cpu_time() -> Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split(' ').next().context("schedstat is empty")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}
