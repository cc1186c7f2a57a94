//! `cargo xtask bench e2e`: whole servers under load, ours and others side by side.
//!
//! Each run starts a server in an empty directory, puts a tailnet into it, and lets `meshharness` play the nodes: it
//! judges what they see, and counts what the server used up. The figures come as tables for `docs/benchmarks.md`.

pub(super) mod adapter;
mod outcome;
mod real;
pub(super) mod run;
pub(super) mod server;
pub(super) mod tailnet;
pub(super) mod workload;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};

use self::adapter::Side;
use self::outcome::Outcomes;
use self::run::Programs;
use self::tailnet::Tailnet;
use self::workload::{Sizes, Workload};
use super::heading;
use crate::phases::Phases;
use crate::postgres::{Durability, Postgres};

/// What to run.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Workloads; those that share a tailnet share a run. All when absent
    #[arg(long, value_enum, ignore_case = true, value_delimiter = ',')]
    workload: Vec<Workload>,
    /// Another server to run beside ours: an adapter, shipped or a file, and its program
    #[arg(long, value_name = "ADAPTER=BINARY")]
    against: Vec<Side>,
    /// Run only the other servers
    #[arg(long, requires = "against")]
    without_ours: bool,
    /// What our server keeps its data in
    #[arg(long, value_enum, default_value = "sqlite")]
    database: Database,
    /// How often each is run
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Nodes, instead of those of each workload
    #[arg(long)]
    nodes: Option<usize>,
    /// Rules, instead of those of each workload that has rules
    #[arg(long)]
    rules: Option<usize>,
    /// How long a phase may take until it is given up, such as 90s or 8m
    #[arg(long, default_value = "8m", value_parser = parse_span)]
    limit: Duration,
    /// A directory for what the harness said in each run, as JSON
    #[arg(long)]
    raw: Option<PathBuf>,
}

/// What our server keeps its data in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Database {
    Sqlite,
    Postgres,
}

/// Builds what is needed, runs everything one after the other, and prints the tables.
///
/// # Errors
/// Something cannot be built or started. A server that is too slow or wrong is a result.
pub(crate) fn run(options: &Options, phases: &mut Phases) -> Result<()> {
    let workloads = if options.workload.is_empty() {
        Workload::value_variants().iter().copied().collect()
    } else {
        options.workload.iter().copied().collect::<BTreeSet<_>>()
    };
    let sizes = Sizes { nodes: options.nodes, rules: options.rules };
    let sessions = workload::sessions(&workloads, sizes);
    let programs = Programs::build(sessions.iter().any(|session| session.stock > 0), phases)?;
    let servers = options.sides(&programs)?;
    let postgres = if servers.iter().any(Side::wants_postgres) {
        Some(phases.run("start Postgres", || Postgres::provide(Durability::Full))?)
    } else {
        None
    };
    let mut outcomes = Outcomes::default();
    for session in &sessions {
        let tailnet =
            phases.run("make a tailnet", || Tailnet::generate(&programs.benchgen, session.spec))?;
        for number in 1..=options.runs {
            for side in &servers {
                let name = format!("{} on {}, run {number}", session.title(), side.name);
                let reported = phases.run(&name, || {
                    let bench = run::Run { programs: &programs, session, tailnet: &tailnet };
                    bench.against(side, postgres.as_ref(), options.limit)
                })?;
                if let Some(raw) = &options.raw {
                    reported.save(raw, &format!("{}-{}-{number}", session.title(), side.name))?;
                }
                outcomes.add(session, sizes.is_full(), side, number, reported);
            }
        }
    }
    let used = outcomes.versions();
    println!("\n{}\n\n{outcomes}", heading(&used)?);
    Ok(())
}

impl Options {
    fn sides(&self, programs: &Programs) -> Result<Vec<Side>> {
        let ours = match self.database {
            Database::Sqlite => "meshcontrol-sqlite",
            Database::Postgres => "meshcontrol-postgres",
        };
        let mut sides = vec![Side::new(ours, programs.server.clone())?];
        if self.without_ours {
            sides.clear();
        }
        sides.extend(self.against.iter().cloned());
        Ok(sides)
    }
}

/// Reads `90s` or `8m`.
fn parse_span(text: &str) -> Result<Duration> {
    let (number, seconds) = match (text.strip_suffix('s'), text.strip_suffix('m')) {
        (Some(number), _) => (number, 1),
        (_, Some(number)) => (number, 60),
        (None, None) => bail!("the unit is s or m"),
    };
    let number: u32 = number.parse().context("not a number and a unit")?;
    Ok(Duration::from_secs(seconds) * number)
}

#[cfg(test)]
mod tests;
