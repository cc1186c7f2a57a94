//! `cargo xtask bench traffic`: TCP between two nodes, ours and stock clients.
//!
//! The measuring is done by `traffic` of the integration crate; here everything is built and handed over.

use anyhow::Result;
use clap::Args;

use super::heading;
use crate::command::{cargo, execute, target_dir};
use crate::go::Go;
use crate::phases::Phases;

/// How long, and how often.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Seconds of sending each time
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How often each pair sends; the median counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

/// Builds server and clients, then measures.
///
/// # Errors
/// A missing tool, or clients that do not reach each other.
pub(super) fn run(options: &Options, phases: &mut Phases) -> Result<()> {
    let target = target_dir()?;
    let (release, tsnet) = (target.join("release"), target.join("drivers/tsnet"));
    let go = Go::find()?;
    phases.run("build the tsnet driver", || go.build("integration/tsnet", &tsnet))?;
    phases.run("build the server, our client and the bench", || {
        let packages = "--package meshcontrol --package mesh-integration";
        execute(&mut cargo(&format!("build --release --locked --bins {packages}")))
    })?;
    println!("\n{}\n", heading("tsnet of integration/tsnet/go.mod")?);
    let mut command = std::process::Command::new(release.join("traffic"));
    command
        .args(["--seconds", &options.seconds.to_string()])
        .args(["--runs", &options.runs.to_string()])
        .env("MESHCONTROL_TEST_BINARY", release.join("meshcontrol"))
        .env("CARGO_BIN_EXE_ours", release.join("ours"))
        .env("MESHCONTROL_TEST_TSNET", &tsnet);
    phases.run("measure", || execute(&mut command))
}
