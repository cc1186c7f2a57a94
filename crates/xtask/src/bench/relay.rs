//! `cargo xtask bench relay`: DERP relays under load, ours beside Go's or any other.
//!
//! The measuring is done by `derpload`. Here each relay is started afresh for each workload and run, on a core of its own, one
//! after the other; the median of the runs is told.

mod server;
mod table;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::server::Relays;
use self::table::{Case, Tables};
use super::heading;
use crate::command::{cargo, execute, output, target_dir};
use crate::go::Go;
use crate::phases::Phases;

/// What `derpload` knows, but for the one that needs two relays.
const WORKLOADS: [&str; 7] =
    ["throughput", "load", "overload", "login", "storm", "slow", "hostile"];

/// The workload that needs two relays of one mesh.
const MESH: &str = "mesh";

/// Cores of relay and bench, which have one each.
const RELAY_CORE: usize = 0;
const BENCH_CORE: usize = 1;

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Only these workloads
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(
        WORKLOADS.into_iter().chain([MESH])
    ))]
    workload: Vec<String>,
    /// How often each; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Another relay beside ours: `derper`, which is built; `derper=BINARY` or `meshcontrol=BINARY`; or `NAME=ADDR` for one
    /// that runs already, of which only the time is told, not what it spends
    #[arg(long, value_name = "RELAY")]
    against: Vec<Side>,
}

/// A relay to be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Side {
    name: String,
    origin: Origin,
}

/// Where a relay comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// Ours, `meshcontrol derp`.
    Meshcontrol(PathBuf),
    /// Go's relay; without a path it has to be built.
    Derper(Option<PathBuf>),
    /// It runs already.
    Running(SocketAddr),
}

impl FromStr for Side {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((name, place)) = text.split_once('=') else {
            return match text {
                "derper" => Ok(Self { name: text.to_owned(), origin: Origin::Derper(None) }),
                _ => bail!("not derper, NAME=BINARY or NAME=ADDR"),
            };
        };
        if let Ok(addr) = place.parse() {
            return Ok(Self { name: name.to_owned(), origin: Origin::Running(addr) });
        }
        let binary = std::fs::canonicalize(place).with_context(|| place.to_owned())?;
        let program = binary.file_name().unwrap_or_default().to_string_lossy();
        let name = if *program == *name { name.to_owned() } else { format!("{name}@{program}") };
        let origin = match text.split_once('=').map(|(kind, _)| kind) {
            Some("derper") => Origin::Derper(Some(binary)),
            Some("meshcontrol") => Origin::Meshcontrol(binary),
            _ => bail!("only derper and meshcontrol can be started"),
        };
        Ok(Self { name, origin })
    }
}

impl Side {
    /// Whether two of them make a mesh.
    fn can_mesh(&self) -> bool {
        !matches!(self.origin, Origin::Running(_))
    }

    /// What it calls itself.
    fn version(&self) -> Result<String> {
        let (binary, flag) = match &self.origin {
            Origin::Meshcontrol(binary) => (binary, "--version"),
            Origin::Derper(Some(binary)) => (binary, "-version"),
            Origin::Derper(None) | Origin::Running(_) => return Ok(self.name.clone()),
        };
        let printed = output(Command::new(binary).arg(flag))?;
        let version = printed.lines().next().unwrap_or_default();
        Ok(format!("{}: {version}", self.name))
    }
}

/// Builds what is needed, measures everything one after the other, and prints the tables.
///
/// # Errors
/// Something cannot be built or started, or a relay does not let the bench in.
pub(super) fn run(options: &Options, phases: &mut Phases) -> Result<()> {
    let target = target_dir()?;
    let bench = target.join("release/derpload");
    phases.run("build server and bench with optimisation", || {
        let packages = "--package meshcontrol --package mesh-derp-load";
        execute(&mut cargo(&format!("build --release --locked --bins {packages}")))
    })?;
    let ours = Origin::Meshcontrol(target.join("release/meshcontrol"));
    let mut sides = vec![Side { name: "meshcontrol".to_owned(), origin: ours }];
    for side in &options.against {
        sides.push(built(side, &target, phases)?);
    }
    let mut tables = Tables::default();
    for workload in options.workloads() {
        for number in 1..=options.runs {
            for side in sides.iter().filter(|side| workload != MESH || side.can_mesh()) {
                let title = format!("{workload} on {}, run {number}", side.name);
                let cases = phases.run(&title, || measure(&bench, side, workload, options.seconds));
                tables.add(workload, &side.name, cases?);
            }
        }
    }
    let versions: Result<Vec<_>> = sides.iter().map(Side::version).collect();
    println!("\n{}\n\n{tables}", heading(&versions?.join(", "))?);
    Ok(())
}

impl Options {
    fn workloads(&self) -> Vec<&str> {
        if self.workload.is_empty() {
            WORKLOADS.into_iter().chain([MESH]).collect()
        } else {
            self.workload.iter().map(String::as_str).collect()
        }
    }
}

fn built(side: &Side, target: &Path, phases: &mut Phases) -> Result<Side> {
    if side.origin != Origin::Derper(None) {
        return Ok(side.clone());
    }
    let binary = target.join("drivers/derper");
    let go = Go::find()?;
    phases.run("build Go's relay", || go.build_derper(&binary))?;
    Ok(Side { name: side.name.clone(), origin: Origin::Derper(Some(binary)) })
}

/// Starts the relays that a workload needs, measures them, and ends them.
fn measure(bench: &Path, side: &Side, workload: &str, seconds: u64) -> Result<Vec<Case>> {
    let relays = Relays::start(side, if workload == MESH { 2 } else { 1 })?;
    let mut command = Command::new(bench);
    command.args(["--workload", workload, "--seconds", &seconds.to_string()]);
    command.args(["--core", &BENCH_CORE.to_string()]).args(relays.arguments());
    let printed = output(&mut command).with_context(|| relays.log())?;
    let cases = printed.lines().map(serde_json::from_str).collect::<Result<_, _>>();
    cases.with_context(|| format!("derpload printed {printed}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_are_named_by_what_they_are_or_where() {
        let parse = |text: &str| text.parse::<Side>().map(|side| (side.name, side.origin));
        let (name, origin) = parse("derper").unwrap();
        assert_eq!((&*name, origin), ("derper", Origin::Derper(None)));
        let addr = "127.0.0.1:443".parse().unwrap();
        let (name, origin) = parse("hyper=127.0.0.1:443").unwrap();
        assert_eq!((&*name, origin), ("hyper", Origin::Running(addr)));
        let (name, origin) = parse("meshcontrol=/bin/sh").unwrap();
        assert!(name.starts_with("meshcontrol@"), "{name}");
        assert!(matches!(origin, Origin::Meshcontrol(_)));
        for wrong in ["hyper", "hyper=/bin/sh", "derper=/nowhere"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
