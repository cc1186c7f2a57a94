//! Chores of the house, one verb each: `cargo xtask tidy | lint | test | ci | bench | fuzz`.
//!
//! Whatever a person or the gate does to the whole workspace is done here, in Rust, so that both do the
//! same. What a chore needs from the machine (Postgres, Go, a C++ compiler) it finds or names with the
//! command that installs it; it never downloads a tool.
#![expect(clippy::print_stdout, reason = "a chore speaks to the person who called it")]

mod bench;
mod command;
mod fuzz;
mod go;
mod lint;
mod phases;
mod postgres;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::phases::Phases;

/// The command line of `cargo xtask`.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Chores of the house")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
enum Chore {
    /// Prove the rules of the house: layers, pure cores, one home for SQL, docs that name what exists
    Tidy,
    /// Check formatting, clippy, rustdoc, the rules of `tidy`, and dependencies if cargo-deny is installed
    Lint,
    /// Run every test: the workspace's, then real Tailscale clients against the real server
    Test(test::Options),
    /// Run what the gate runs: `lint`, then `test` with nothing left out
    Ci,
    /// Run the benches on a release build and print figures ready for docs/benchmarks.md
    Bench(bench::Options),
    /// Fuzz the parsers of peer input with libFuzzer on stable Rust
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let mut phases = Phases::default();
    let outcome = run(Arguments::parse().chore, &mut phases);
    println!("{phases}");
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore, phases: &mut Phases) -> Result<()> {
    match chore {
        Chore::Tidy => phases.run("tidy", tidy::run),
        Chore::Lint => lint::run(phases),
        Chore::Test(options) => test::run(&options, phases),
        Chore::Ci => {
            lint::run(phases)?;
            test::run(&test::Options::default(), phases)
        }
        Chore::Bench(options) => bench::run(&options, phases),
        Chore::Fuzz(options) => fuzz::run(&options, phases),
    }
}
