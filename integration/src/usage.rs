//! What a process has used, as Linux tells it.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// The clock ticks that a second has in `/proc`.
///
/// Source: `man 5 proc_pid_stat`; `USER_HZ` is 100 on every Linux we run on.
const TICKS_PER_SECOND: u64 = 100;

/// Processor time and memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of all its threads, its own and the kernel's for it, in steps of 10 ms.
    pub processor: Duration,
    /// Memory that it has now, in bytes.
    pub resident_bytes: u64,
    /// The most that it ever had, in bytes.
    pub resident_bytes_peak: u64,
}

impl Usage {
    /// What the process `pid` has used since it started.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let read = |file| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("reading {path}"))
        };
        let (stat, status) = (read("stat")?, read("status")?);
        let kib = |field| find_kib(&status, field).with_context(|| format!("no {field} of {pid}"));
        Ok(Self {
            processor: processor_time(&stat).with_context(|| format!("no times of {pid}"))?,
            resident_bytes: kib("VmRSS")? * 1024,
            resident_bytes_peak: kib("VmHWM")? * 1024,
        })
    }
}

/// Fields 14 and 15 of `stat`; the second field is a name in parentheses that may hold anything.
fn processor_time(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(|ticks| ticks.parse::<u64>().ok());
    let ticks = times.next()?? + times.next()??;
    Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

fn find_kib(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "77 (a) b) S 1 77 77 0 -1 4194560 500 0 0 0 120 35 0 0 20 0 4 0 99";
        assert_eq!(processor_time(stat), Some(Duration::from_millis(1550)));
        assert_eq!(processor_time("77 (a) S 1"), None);
        let status = "Name:\ta\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n";
        assert_eq!(find_kib(status, "VmRSS"), Some(1024));
        assert_eq!(find_kib(status, "VmSwap"), None);
    }
}
