//! `cargo xtask test`: every test there is, with what each needs from the machine.
//!
//! First the tests of the workspace, on SQLite and on Postgres, and the examples in its docs, with every feature
//! that some crate asks for; then the scenarios of `integration/`, in which real Tailscale clients join the real
//! server; last, what small workloads cost the server. Nothing is skipped unless asked for by name.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::bench;
use crate::command::{cargo, execute, target_dir};
use crate::go::Go;
use crate::phases::Phases;
use crate::postgres::{Durability, Postgres, URL_VARIABLE};

/// What to leave out.
#[derive(Args, Debug, Default)]
pub(crate) struct Options {
    /// Leave out a part that this machine cannot run; the gate leaves out nothing
    #[arg(long, value_enum)]
    without: Vec<Part>,
}

/// A part that needs more than Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The scenarios with real clients, which need Go
    Integration,
    /// Whatever runs on Postgres
    Postgres,
    /// What small workloads cost the server, which needs a build with optimisation
    Speed,
}

/// The programs that the scenarios drive, each under the environment variable that names it.
#[derive(Debug)]
struct Driven(Vec<(&'static str, PathBuf)>);

/// Runs the tests.
///
/// # Errors
/// The first phase that fails, or a missing tool with how to install it.
pub(crate) fn run(options: &Options, phases: &mut Phases) -> Result<()> {
    let without = |part| options.without.contains(&part);
    let go = if without(Part::Integration) { None } else { Some(Go::find()?) };
    let postgres = if without(Part::Postgres) {
        None
    } else {
        Some(phases.run("start Postgres", || Postgres::provide(Durability::Scratch))?)
    };
    phases.run("tests of the workspace", || {
        let command = cargo("test --workspace --exclude mesh-integration --locked");
        execute(&mut with_postgres(command, postgres.as_ref()))
    })?;
    if let Some(go) = go {
        let driven = Driven::build(&go, phases)?;
        phases.run("scenarios with real clients", || {
            let mut command = cargo("test --package mesh-integration --locked");
            command.envs(driven.0);
            execute(&mut with_postgres(command, postgres.as_ref()))
        })?;
    }
    if !without(Part::Speed) {
        bench::speed::check(phases)?;
    }
    for part in &options.without {
        println!("left out as asked: {}", part.meaning());
    }
    Ok(())
}

/// Hands Postgres over to tests, or leaves out those that need it: all have `postgres` in their names.
fn with_postgres(mut command: Command, postgres: Option<&Postgres>) -> Command {
    match postgres {
        Some(postgres) => command.env(URL_VARIABLE, postgres.url()),
        None => command.env_remove(URL_VARIABLE).args(["--", "--skip", "postgres"]),
    };
    command
}

impl Part {
    fn meaning(self) -> &'static str {
        match self {
            Self::Integration => "the scenarios with real clients",
            Self::Postgres => "every test with `postgres` in its name",
            Self::Speed => "what small workloads cost the server",
        }
    }
}

impl Driven {
    /// Builds the server, the three client drivers, Go's relay, and what fills a database with synthetic nodes.
    fn build(go: &Go, phases: &mut Phases) -> Result<Self> {
        let target = target_dir()?;
        let drivers = target.join("drivers");
        let (tsnet, tsnet_old) = (drivers.join("tsnet"), drivers.join("tsnet-old"));
        phases.run("build the tsnet driver", || go.build("integration/tsnet", &tsnet))?;
        phases
            .run("build the old tsnet driver", || go.build("integration/tsnet-old", &tsnet_old))?;
        let derper = drivers.join("derper");
        phases.run("build Go's relay", || go.build_derper(&derper))?;
        phases.run("build the tailscale-rs driver", || build_tailscale_rs(&drivers))?;
        phases.run("build the server", || {
            execute(&mut cargo("build --package meshcontrol --package mesh-giant --locked"))
        })?;
        Ok(Self(vec![
            ("MESHCONTROL_TEST_TSNET", tsnet),
            ("MESHCONTROL_TEST_TSNET_OLD", tsnet_old),
            ("MESHCONTROL_TEST_DERPER", derper),
            ("MESHCONTROL_TEST_TAILSCALE_RS", drivers.join("debug/mesh-driver-tailscale-rs")),
            ("MESHCONTROL_TEST_BINARY", target.join("debug/meshcontrol")),
            ("MESHCONTROL_TEST_GIANT", target.join("debug/meshgiant")),
        ]))
    }
}

/// Builds the driver of the `tailscale` crate, which is a workspace of its own.
fn build_tailscale_rs(drivers: &Path) -> Result<()> {
    let mut command = cargo("build --locked --manifest-path integration/tailscale-rs/Cargo.toml");
    execute(command.arg("--target-dir").arg(drivers))
}
