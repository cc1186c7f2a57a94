//! `cargo xtask bench`: the benches of the crates, and whole servers under load.
//!
//! The figures are printed under a heading that names the machine and the commit, ready to be pasted into
//! `docs/benchmarks.md`.

mod client;
mod e2e;
mod giant;
mod micro;
mod relay;
pub(crate) mod speed;
mod traffic;

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use crate::command::{at_root, output};
use crate::phases::Phases;

/// What to measure.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    whole: Option<Whole>,
    /// Only the benches of this name; all of them when absent
    bench: Option<String>,
}

/// What measures whole servers.
#[derive(Debug, Subcommand)]
enum Whole {
    /// Run the workloads W1 to W8 against the server, side by side with other servers
    E2e(e2e::Options),
    /// Have peers come and go around one node in tailnets of many, beside Tailscale's own benchmark
    Client(client::Options),
    /// Have nodes come and go in tailnets of many synthetic nodes, seen by one real one
    Giant(giant::Options),
    /// Send as much as passes between two nodes, ours and stock clients, directly and through the relay
    Traffic(traffic::Options),
    /// Measure DERP relays: ours beside Go's, or any other
    Relay(relay::Options),
    /// Measure what the gate guards: small workloads by what they cost the server
    Speed(speed::Options),
}

/// Measures what is asked for.
///
/// # Errors
/// See [`micro::run()`], [`e2e::run()`], [`client::run()`], [`giant::run()`],
/// [`traffic::run()`], [`relay::run()`] and [`speed::run()`].
pub(crate) fn run(options: &Options, phases: &mut Phases) -> Result<()> {
    match &options.whole {
        Some(Whole::E2e(options)) => e2e::run(options, phases),
        Some(Whole::Speed(options)) => speed::run(options, phases),
        Some(Whole::Client(options)) => client::run(options, phases),
        Some(Whole::Giant(options)) => giant::run(options, phases),
        Some(Whole::Traffic(options)) => traffic::run(options, phases),
        Some(Whole::Relay(options)) => relay::run(options, phases),
        None => micro::run(options.bench.as_deref(), phases),
    }
}

/// The heading above a set of figures: commit, processor, memory, kernel, compiler and what else was used.
fn heading(used: &str) -> Result<String> {
    let commit = output(at_root("git").args(["log", "-1", "--format=%cs, commit %h"]))?;
    let changed = output(at_root("git").args(["status", "--porcelain", "--untracked-files=no"]))?;
    let mark = if changed.is_empty() { "" } else { " and uncommitted changes" };
    let rustc = output(Command::new("rustc").arg("--version"))?;
    let kernel = output(Command::new("uname").arg("-sr"))?;
    let machine = machine().context("cannot tell the machine from /proc")?;
    Ok(format!("## {commit}{mark}\n\n{machine}; {kernel}; {rustc}; {used}."))
}

/// Processor and memory, as Linux tells them.
fn machine() -> Option<String> {
    let processors = fs::read_to_string("/proc/cpuinfo").ok()?;
    let models: Vec<_> = processors.lines().filter(|line| line.starts_with("model name")).collect();
    let model = models.first()?.split_once(':')?.1.trim();
    let memory = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = memory.lines().next()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(format!("{} x {model}, {} GiB", models.len(), kib / (1 << 20)))
}
