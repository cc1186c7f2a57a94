//! What processes have used up, from `/proc`, and where they run.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Keeps this thread on one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("cannot run on core {core}"))
}

/// Processor time of other processes together, kernel included; in steps of 10 ms each.
pub(crate) fn time_of(pids: &[u32]) -> Result<Duration> {
    pids.iter().map(|pid| time_of_one(*pid)).sum()
}

fn time_of_one(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).context("relay is not running")?;
    parse_stat(&stat).with_context(|| format!("cannot read {path}"))
}

fn parse_stat(stat: &str) -> Option<Duration> {
    // The name before it may hold anything, brackets and blanks too.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis((user + system).saturating_mul(1000) / per_second))
}

/// Memory of other processes that is resident, in bytes.
pub(crate) fn resident_bytes(pids: &[u32]) -> Result<u64> {
    pids.iter()
        .map(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib =
                line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
            Ok(kib.context("no VmRSS")? * 1024)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read() {
        let stat = "7 (a) b) S 1 1 1 0 -1 4194304 102 0 0 0 250 50 0 0 20 0 1 0 23";
        let per_second = rustix::param::clock_ticks_per_second();
        assert_eq!(parse_stat(stat), Some(Duration::from_millis(300_000 / per_second)));
        assert_eq!(parse_stat("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_has_time_and_memory() {
        let own = [std::process::id()];
        assert!(time_of(&own).is_ok());
        assert!(resident_bytes(&own).unwrap() > 1 << 20);
        assert!(time_of(&[u32::MAX]).is_err());
    }
}
