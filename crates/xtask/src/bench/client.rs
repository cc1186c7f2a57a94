//! `cargo xtask bench client`: the bundled node in tailnets of many synthetic peers, beside Tailscale's node.
//!
//! Ours is measured by `giantnode`, theirs by `BenchmarkGiantTailnet` of the version that the tsnet driver is built with, one
//! after the other on the same machine. In both a step is a message that adds a peer and removes the one before.
//!
//! - Theirs run in one process with their server. Without a watcher a test hook inside the client says that it knows the peer.
//!   With one, any notice counts, and a step may cause two, so that steps overlap.
//! - Ours run twice: with the server in a process of its own, which costs two more switches and tells what each of them uses up,
//!   and together with it as theirs. "Watched": a watcher waits for the very peer. "Noticed": for one event, as theirs. "In a row":
//!   nobody waits, which tells the work without the wait.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::Deserialize;

use super::heading;
use crate::command::{cargo, execute, output, root, target_dir};
use crate::go::Go;
use crate::phases::Phases;

/// The module with the version of Tailscale that is measured.
const MODULE: &str = "integration/tsnet";

/// Tailscale's benchmark.
const THEIRS: &str = "tailscale.com/tstest/largetailnet";

/// How giant, and for how long.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Sizes of the tailnet, in synthetic peers
    #[arg(long, value_delimiter = ',', default_value = "10000,50000,100000,250000")]
    nodes: Vec<u32>,
    /// How many times a peer comes and another goes
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
}

/// What `giantnode` found out.
#[derive(Debug, Deserialize)]
struct Ours {
    first_map_ms: f64,
    first_map_cpu_ms: f64,
    resident_peak_bytes: f64,
    unwatched: CostMicros,
    watched: CostMicros,
    noticed: CostMicros,
}

/// What a step costs, in microseconds.
#[derive(Debug, Deserialize)]
struct CostMicros {
    wall: f64,
    node_cpu: f64,
    control_cpu: f64,
}

/// What Tailscale's benchmark found out.
#[derive(Debug, PartialEq)]
struct Theirs {
    /// From the start of the node until it is up, as Go writes a span.
    up: String,
    unwatched_us: f64,
    noticed_us: f64,
}

/// Builds both, measures one after the other, and prints the table.
///
/// # Errors
/// A missing tool, or a node that does not keep up.
pub(super) fn run(options: &Options, phases: &mut Phases) -> Result<()> {
    let target = target_dir()?;
    let (ours, theirs) = (target.join("release/giantnode"), target.join("drivers/largetailnet"));
    let go = Go::find()?;
    phases.run("build Tailscale's benchmark", || go.build_tests(MODULE, THEIRS, &theirs))?;
    phases.run("build ours", || {
        execute(&mut cargo("build --release --locked --bins --package mesh-giant-node"))
    })?;
    let mut rows = Vec::new();
    for &nodes in &options.nodes {
        let apart = phases.run(&format!("ours among {nodes}"), || {
            Ours::measure(&ours, nodes, options.steps, &[])
        })?;
        let together = phases.run(&format!("ours among {nodes}, with its server"), || {
            Ours::measure(&ours, nodes, options.steps, &["--together"])
        })?;
        let theirs = phases.run(&format!("Tailscale's among {nodes}"), || {
            Theirs::measure(&theirs, nodes, options.steps)
        })?;
        rows.push(Row { nodes, apart, together, theirs });
    }
    println!("\n{}\n\n{HEAD}", heading(&version()?)?);
    for row in rows {
        println!("{row}");
    }
    Ok(())
}

impl Ours {
    fn measure(program: &Path, nodes: u32, steps: u32, how: &[&str]) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["measure", "--nodes", &nodes.to_string(), "--steps", &steps.to_string()]);
        command.args(how);
        Ok(serde_json::from_str(&output(&mut command)?)?)
    }
}

impl Theirs {
    fn measure(program: &Path, nodes: u32, steps: u32) -> Result<Self> {
        let mut command = Command::new(program);
        command
            .args(["-test.run", "^$", "-test.bench", "^BenchmarkGiantTailnet(BusWatcher)?$"])
            .args(["-test.timeout", "30m", "-test.benchtime", &format!("{steps}x")])
            .args(["--actually-test-giant-tailnet", &format!("--giant-tailnet-n={nodes}")]);
        parse(&output(&mut command)?)
    }
}

/// Which Tailscale theirs is of.
fn version() -> Result<String> {
    let module = fs::read_to_string(root().join(MODULE).join("go.mod"))?;
    let version = module.lines().find_map(|line| line.trim().strip_prefix("tailscale.com "));
    Ok(format!("Tailscale {}", version.context("go.mod names no tailscale.com")?))
}

/// Reads what Go's benchmarks print.
fn parse(printed: &str) -> Result<Theirs> {
    let of = |name: &str| {
        let line = printed.lines().find(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['-', ' ', '\t']))
        });
        let line = line.with_context(|| format!("no {name} in: {printed}"))?;
        let words: Vec<_> = line.split_whitespace().collect();
        let [.., nanoseconds, "ns/op"] = words[..] else { anyhow::bail!("no ns/op in: {line}") };
        Ok(nanoseconds.parse::<f64>()? / 1e3)
    };
    let up = printed.lines().find_map(|line| Some(line.split_once("netmap processed in ")?.1));
    let up = up.context("no first map")?.trim().to_owned();
    ensure!(!up.is_empty(), "no time of the first map");
    let (unwatched_us, noticed_us) =
        (of("BenchmarkGiantTailnet")?, of("BenchmarkGiantTailnetBusWatcher")?);
    Ok(Theirs { up, unwatched_us, noticed_us })
}

const HEAD: &str = "\
| peers | first map | of it CPU | resident at most | in a row | CPU node, server | watched | CPU node, server \
| together: in a row | watched | noticed | Tailscale: up | step | noticed | step to watched, noticed to noticed |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

/// What there is to tell of a size.
struct Row {
    nodes: u32,
    /// With the server in a process of its own.
    apart: Ours,
    /// With the server in the same process, as theirs.
    together: Ours,
    theirs: Theirs,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, apart, together, theirs } = self;
        write!(f, "| {nodes} | {:.0} ms ", apart.first_map_ms)?;
        write!(f, "| {:.0} ms ", apart.first_map_cpu_ms)?;
        write!(f, "| {:.0} MB ", apart.resident_peak_bytes / 1e6)?;
        for cost in [&apart.unwatched, &apart.watched] {
            write!(f, "| {:.1} us ", cost.wall)?;
            write!(f, "| {:.1} us, {:.1} us ", cost.node_cpu, cost.control_cpu)?;
        }
        for cost in [&together.unwatched, &together.watched, &together.noticed] {
            write!(f, "| {:.1} us ", cost.wall)?;
        }
        write!(f, "| {} | {:.0} us ", theirs.up, theirs.unwatched_us)?;
        let step = theirs.unwatched_us / together.watched.wall;
        let noticed = theirs.noticed_us / together.noticed.wall;
        write!(f, "| {:.0} us | {step:.1} and {noticed:.1} times |", theirs.noticed_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_prints_is_read() {
        let printed = "goos: linux\n\
            2026/11/22 03:43:58 LocalBackend state is NeedsLogin\n\
            BenchmarkGiantTailnet-2             \t    2000\t    291113 ns/op\n\
            --- BENCH: BenchmarkGiantTailnet-2\n    \
            largetailnet_test.go:145: initial 10000-peer netmap processed in 1.004185673s\n\
            BenchmarkGiantTailnetBusWatcher-2   \t    2000\t    120757 ns/op\nPASS";
        let expected =
            Theirs { up: "1.004185673s".to_owned(), unwatched_us: 291.113, noticed_us: 120.757 };
        assert_eq!(parse(printed).unwrap(), expected);
        assert!(parse("PASS").is_err());
    }
}
