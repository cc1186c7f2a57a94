//! What this process uses up.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};

/// The processor time of all threads so far.
pub(crate) fn processor_time() -> Duration {
    time(ClockId::ProcessCPUTime)
}

/// A clock that all processes of the machine share.
pub(crate) fn shared_clock() -> Duration {
    time(ClockId::Monotonic)
}

fn time(clock: ClockId) -> Duration {
    Duration::try_from(clock_gettime(clock)).expect("invariant: these clocks begin at zero")
}

/// The most memory that was ever resident, in bytes.
pub(crate) fn resident_bytes_peak() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.context("no VmHWM in /proc/self/status")? * 1024)
}
