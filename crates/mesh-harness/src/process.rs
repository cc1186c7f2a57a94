//! What a process has used up, from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// Where to look for the number of the server's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PidSource {
    Pid(u32),
    /// A file that holds it; read again when the process is gone.
    File(PathBuf),
}

impl From<&str> for PidSource {
    fn from(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::File(text.into()), Self::Pid)
    }
}

impl PidSource {
    fn pid(&self) -> Option<u32> {
        match self {
            Self::Pid(pid) => Some(*pid),
            Self::File(path) => fs::read_to_string(path).ok()?.trim().parse().ok(),
        }
    }
}

/// A process that is watched, and those that take its place.
#[derive(Debug)]
pub(crate) struct Process {
    source: PidSource,
    current: Option<Current>,
    /// Processor time of those before.
    before: Duration,
    /// Highest peak of those before, in bytes.
    peak_before: u64,
}

#[derive(Debug, Default)]
struct Current {
    pid: u32,
    cpu: Duration,
    peak: u64,
    /// Processor time of every thread ever seen.
    threads: HashMap<u32, Duration>,
}

impl Process {
    /// Begins to watch.
    ///
    /// # Errors
    /// The process does not run, or there is no `/proc`.
    pub(crate) fn watch(source: PidSource) -> Result<Self> {
        let mut process = Self { source, current: None, before: Duration::ZERO, peak_before: 0 };
        process.cpu();
        ensure!(process.current.is_some(), "the server's process cannot be found in /proc");
        Ok(process)
    }

    /// This process itself.
    pub(crate) fn own() -> Result<Self> {
        Self::watch(PidSource::Pid(std::process::id())).context("no /proc here")
    }

    /// Processor time of all its threads so far, in user and kernel mode.
    pub(crate) fn cpu(&mut self) -> Duration {
        let running = self.current.as_mut().is_some_and(Current::refresh);
        if !running {
            self.replace();
        }
        self.before + self.current.as_ref().map_or(Duration::ZERO, |current| current.cpu)
    }

    /// Most memory it ever had resident, in bytes.
    pub(crate) fn memory_peak(&self) -> u64 {
        self.peak_before.max(self.current.as_ref().map_or(0, |current| current.peak))
    }

    fn replace(&mut self) {
        if let Some(gone) = self.current.take() {
            self.before += gone.cpu;
            self.peak_before = self.peak_before.max(gone.peak);
        }
        let Some(pid) = self.source.pid() else { return };
        let mut next = Current { pid, ..Current::default() };
        if next.refresh() {
            self.current = Some(next);
        }
    }
}

impl Current {
    /// Looks again. False if the process is gone.
    ///
    /// The system's sum counts in steps of 10 ms; what each thread has had is finer, but gone with the thread. Both
    /// can only be too low, so the higher one is nearer.
    fn refresh(&mut self) -> bool {
        let Some(ticks) = ticks(self.pid) else { return false };
        for thread in threads(self.pid) {
            if let Some(had) = thread_time(self.pid, thread) {
                self.threads.insert(thread, had);
            }
        }
        self.cpu = ticks.max(self.threads.values().sum());
        self.peak = memory_peak(self.pid).unwrap_or(self.peak);
        true
    }
}

/// Processor time as `/proc/PID/stat` tells it. A zombie is gone.
fn ticks(pid: u32) -> Option<Duration> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(stat: &str) -> Option<Duration> {
    // The name before it may hold anything, brackets and blanks too.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    let user: u64 = fields.nth(10)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let millis = (user + system).saturating_mul(1000) / per_second;
    (state != "Z").then(|| Duration::from_millis(millis))
}

fn threads(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}

fn thread_time(pid: u32, thread: u32) -> Option<Duration> {
    let task = format!("/proc/{pid}/task/{thread}");
    if let Ok(schedstat) = fs::read_to_string(format!("{task}/schedstat")) {
        return Some(Duration::from_nanos(schedstat.split_whitespace().next()?.parse().ok()?));
    }
    parse_sched(&fs::read_to_string(format!("{task}/sched")).ok()?)
}

/// Reads `se.sum_exec_runtime : 12.345678`, in milliseconds.
fn parse_sched(sched: &str) -> Option<Duration> {
    let line = sched.lines().find(|line| line.starts_with("se.sum_exec_runtime"))?;
    let millis: f64 = line.rsplit(':').next()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(millis / 1000.0).ok()
}

fn memory_peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_use_grows_with_work() {
        let mut own = Process::own().unwrap();
        let before = own.cpu();
        let mut word = 1_u64;
        while own.cpu().saturating_sub(before) < Duration::from_millis(30) {
            word =
                std::hint::black_box((0..10_000).fold(word, |word, add| word.rotate_left(7) ^ add));
        }
        assert!(own.memory_peak() > 1 << 20);
    }

    #[test]
    fn lines_of_proc_are_read() {
        let stat = "7 (a) b) S 1 1 1 0 -1 4194304 102 0 0 0 250 50 0 0 20 0 1 0 23";
        let per_second = rustix::param::clock_ticks_per_second();
        assert_eq!(parse_stat(stat), Some(Duration::from_millis(300_000 / per_second)));
        assert_eq!(parse_stat(&stat.replace(" S ", " Z ")), None);
        let sched = "head (1, #threads: 1)\nse.sum_exec_runtime    :     1.500000\n";
        assert_eq!(parse_sched(sched), Some(Duration::from_micros(1500)));
    }

    #[test]
    fn who_does_not_run_cannot_be_watched() {
        Process::watch("4294967295".into()).unwrap_err();
        Process::watch("/nowhere/server.pid".into()).unwrap_err();
        assert_eq!(PidSource::from("12"), PidSource::Pid(12));
    }
}
