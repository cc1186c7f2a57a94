//! The phases of a chore, with the wall time of each.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// What has been run so far, in order.
#[derive(Debug, Default)]
pub(crate) struct Phases {
    ended: Vec<Phase>,
}

/// One phase that has ended.
#[derive(Debug)]
struct Phase {
    name: String,
    took: Duration,
    failed: bool,
}

impl Phases {
    /// Runs `work` under `name`, announcing it, and keeps its wall time whether it succeeds or not.
    pub(crate) fn run<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("==> {name}");
        let started_at = Instant::now();
        let outcome = work();
        let failed = outcome.is_err();
        self.ended.push(Phase { name: name.to_owned(), took: started_at.elapsed(), failed });
        outcome.with_context(|| format!("{name} failed"))
    }
}

impl fmt::Display for Phases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nwall time")?;
        for Phase { name, took, failed } in &self.ended {
            let mark = if *failed { "  FAILED" } else { "" };
            writeln!(f, "{:>8.1} s  {name}{mark}", took.as_secs_f64())?;
        }
        let total: Duration = self.ended.iter().map(|phase| phase.took).sum();
        write!(f, "{:>8.1} s  in all", total.as_secs_f64())
    }
}
