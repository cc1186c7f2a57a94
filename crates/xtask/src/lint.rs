//! `cargo xtask lint`: everything that is proven without running a test.

use std::process::Command;

use anyhow::Result;

use crate::command::{at_root, cargo, execute, find};
use crate::phases::Phases;
use crate::tidy;

/// Runs the checks, cheapest first, and stops at the first that fails.
///
/// # Errors
/// The first check that fails; what is wrong has been printed.
pub(crate) fn run(phases: &mut Phases) -> Result<()> {
    phases.run("fmt", || execute(&mut cargo("fmt --all --check")))?;
    phases.run("tidy", tidy::run)?;
    phases.run("clippy", || {
        execute(&mut cargo("clippy --workspace --all-targets --locked -- -D warnings"))
    })?;
    phases.run("doc", || {
        execute(cargo("doc --workspace --no-deps --locked").env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    phases.run("deny", || run_if_installed("cargo-deny", &mut cargo("deny check")))?;
    phases.run("typos", || run_if_installed("typos", &mut at_root("typos")))
}

/// Runs a check whose tool is not part of Rust, or says that it was left out and how to get the tool.
fn run_if_installed(tool: &str, command: &mut Command) -> Result<()> {
    if find(tool).is_some() {
        return execute(command);
    }
    println!("{tool} is not installed, so this check is left out");
    Ok(())
}
