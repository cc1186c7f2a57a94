//! What `cargo xtask bench e2e` and the gate's speed test need of this house's own knowledge: tailnets with the peers
//! that each node must see, and a fixed piece of work to measure a machine by.
//!
//! An example, so that what it is built with is no part of the fixtures that all tests depend on, nor of `xtask`.
#![expect(clippy::print_stdout, reason = "its answers go to standard output")]

mod calibrate;
mod tailnet;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

/// The command line.
#[derive(Debug, Parser)]
#[command(about = "Tailnets to load a control server with, and a measure of this machine")]
enum Arguments {
    /// Write a tailnet: `nodes`, `users`, `expected`, and with rules `policy.hujson` and what an edit makes of it
    Tailnet(tailnet::Options),
    /// Do a fixed piece of work on one thread and print the milliseconds of CPU that it took
    Calibrate,
}

fn main() -> Result<()> {
    match Arguments::parse() {
        Arguments::Tailnet(options) => tailnet::write(&options),
        Arguments::Calibrate => {
            println!("{:.1}", calibrate::run()?.as_secs_f64() * 1e3);
            Ok(())
        }
    }
}

/// A directory that exists once this returns.
fn made(directory: &PathBuf) -> Result<&PathBuf> {
    std::fs::create_dir_all(directory)?;
    Ok(directory)
}
