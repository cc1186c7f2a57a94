//! The gate's guard of speed: small forms of W1 and W2, by what they cost the server.
//!
//! Processor seconds, not wall time, so that a busy machine does not matter much; divided by those of a fixed piece of work
//! (`benchgen calibrate`) done right before and after, so that a slower machine does not either. The best of some tries
//! counts, for noise only ever adds. What is usual is committed; more than a quarter above fails.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use super::e2e::adapter::Side;
use super::e2e::run::{Programs, Run};
use super::e2e::tailnet::Tailnet;
use super::e2e::workload::{Session, Sizes, Workload, sessions};
use crate::command::{output, root};
use crate::phases::Phases;

/// What is usual: a line `WORKLOAD COST` each.
const USUAL: &str = "crates/xtask/speed.txt";

/// How many times the usual is too much. A third more is to be caught in spite of some noise.
const WORSE_MAX: f64 = 1.25;

/// How often a workload is run, until it is within bounds.
const TRIES: usize = 4;

/// Small enough for the gate.
const SIZES: Sizes = Sizes { nodes: Some(200), rules: Some(1000) };

/// How long all nodes may take.
const LIMIT: Duration = Duration::from_mins(1);

/// What to do with the figures.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Write what comes out down as what is usual, instead of comparing
    #[arg(long)]
    store: bool,
}

/// Measures, and compares or stores.
///
/// # Errors
/// Something does not build or run, or is too slow.
pub(super) fn run(options: &Options, phases: &mut Phases) -> Result<()> {
    if !options.store {
        return check(phases);
    }
    let programs = Programs::build(false, phases)?;
    let mut costs = BTreeMap::new();
    for session in guarded() {
        let title = session.title();
        let best = phases.run(&title, || best(&programs, &session, 0.0))?;
        costs.insert(title, best);
    }
    fs::write(root().join(USUAL), written(&costs))?;
    Ok(())
}

/// Compares with what is usual.
///
/// # Errors
/// Something does not build or run, or is too slow.
pub(crate) fn check(phases: &mut Phases) -> Result<()> {
    let usual = read(&fs::read_to_string(root().join(USUAL)).context(USUAL)?)?;
    let programs = Programs::build(false, phases)?;
    for session in guarded() {
        let title = session.title();
        let usual = *usual.get(&title).with_context(|| format!("{USUAL} has no {title}"))?;
        phases.run(&format!("speed of {title}"), || {
            let cost = best(&programs, &session, usual * WORSE_MAX)?;
            ensure!(
                cost <= usual * WORSE_MAX,
                "{title} costs the server {cost:.3} times the fixed piece of work, usually {usual:.3}: find out why, or, \
                 if it must be so, run `cargo xtask bench speed --store` on a quiet machine and commit {USUAL}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

fn guarded() -> Vec<Session> {
    sessions(&[Workload::W1, Workload::W2].into(), SIZES)
}

/// The lowest cost of some tries, as many times the fixed piece of work; the first that is `enough` ends them.
fn best(programs: &Programs, session: &Session, enough: f64) -> Result<f64> {
    let side = Side::new("meshcontrol-sqlite", programs.server.clone())?;
    let tailnet = Tailnet::generate(&programs.benchgen, session.spec)?;
    let bench = Run { programs, session, tailnet: &tailnet };
    let mut best = f64::INFINITY;
    for _ in 0..TRIES {
        let before = calibrate(programs)?;
        let reported = bench.against(&side, None, LIMIT)?;
        let after = calibrate(programs)?;
        let cpu = reported.cpu_when_right()?;
        let cost = cpu / f64::midpoint(before, after);
        println!("{cpu:.3} s, fixed work {before:.3} s and {after:.3} s: {cost:.3}");
        best = best.min(cost);
        if best <= enough {
            break;
        }
    }
    Ok(best)
}

/// Seconds of CPU that the fixed piece of work takes here and now.
fn calibrate(programs: &Programs) -> Result<f64> {
    let milliseconds = output(Command::new(&programs.benchgen).arg("calibrate"))?;
    Ok(milliseconds.parse::<f64>().context("benchgen prints no number")? / 1e3)
}

fn written(costs: &BTreeMap<String, f64>) -> String {
    let mut text = String::from(
        "# What small workloads cost the server: processor time as a multiple of a fixed piece of work.\n\
         # `cargo xtask test` compares; `cargo xtask bench speed --store` writes this file.\n",
    );
    for (title, cost) in costs {
        let _ = writeln!(text, "{title} {cost:.3}");
    }
    text
}

fn read(text: &str) -> Result<BTreeMap<String, f64>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| match line.split_once(' ') {
            Some((title, cost)) => Ok((title.to_owned(), cost.parse()?)),
            None => bail!("{USUAL}: {line:?} is not WORKLOAD COST"),
        })
        .collect()
}

#[cfg(test)]
mod tests;
