//! `cargo xtask bench giant`: one real node inside tailnets of many synthetic ones.
//!
//! The measuring is done by `giant` of the integration crate, whose stage it needs; here everything is built and
//! handed over.

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::heading;
use crate::command::{cargo, execute, target_dir};
use crate::go::Go;
use crate::phases::Phases;
use crate::postgres::{Durability, Postgres, URL_VARIABLE};

/// How giant, and on what.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Sizes of the tailnet, in synthetic nodes, with commas between them
    #[arg(long, default_value = "10000,50000,100000,250000")]
    nodes: String,
    /// On which engines
    #[arg(long, value_enum, value_delimiter = ',', default_value = "sqlite,postgres")]
    database: Vec<Database>,
    /// How many times a node joins and another leaves
    #[arg(long, default_value_t = 200)]
    steps: u32,
    /// How many more steps a stock client watches; 0 does without it, and without Go
    #[arg(long, default_value_t = 50)]
    stock_steps: u32,
}

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Database {
    Sqlite,
    Postgres,
}

impl Database {
    fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// Builds server, generator and client, then measures.
///
/// # Errors
/// A missing tool, or a tailnet in which something is not as it should be.
pub(super) fn run(options: &Options, phases: &mut Phases) -> Result<()> {
    let target = target_dir()?;
    let (release, tsnet) = (target.join("release"), target.join("drivers/tsnet"));
    if options.stock_steps > 0 {
        let go = Go::find()?;
        phases.run("build the tsnet driver", || go.build("integration/tsnet", &tsnet))?;
    }
    phases.run("build the server, the generator and the bench", || {
        let packages = "--package meshcontrol --package mesh-giant --package mesh-integration";
        execute(&mut cargo(&format!("build --release --locked --bins {packages}")))
    })?;
    let postgres = options.database.contains(&Database::Postgres);
    let postgres = postgres
        .then(|| phases.run("start Postgres", || Postgres::provide(Durability::Full)))
        .transpose()?;
    let version = postgres.as_ref().map_or(Ok("SQLite".to_owned()), Postgres::version)?;
    println!("\n{}\n", heading(&version)?);
    let names: Vec<_> = options.database.iter().map(|database| database.name()).collect();
    let mut command = std::process::Command::new(release.join("giant"));
    command
        .args(["--nodes", &options.nodes, "--database", &names.join(",")])
        .args(["--steps", &options.steps.to_string()])
        .args(["--stock-steps", &options.stock_steps.to_string()])
        .env("MESHCONTROL_TEST_BINARY", release.join("meshcontrol"))
        .env("MESHCONTROL_TEST_GIANT", release.join("meshgiant"))
        .env("MESHCONTROL_TEST_TSNET", &tsnet);
    if let Some(postgres) = &postgres {
        command.env(URL_VARIABLE, postgres.url());
    }
    phases.run("measure", || execute(&mut command))
}
