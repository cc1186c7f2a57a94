//! `cargo xtask bench`: every bench of the workspace on a release build, with Postgres at hand.
//!
//! The figures are printed under a heading that names the machine and the commit, ready to be pasted into
//! `docs/benchmarks.md`.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{MetadataCommand, TargetKind};
use clap::Args;

use crate::command::{at_root, cargo, execute, output, root};
use crate::phases::Phases;
use crate::postgres::{Durability, Postgres, URL_VARIABLE};

/// Which benches to run.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Only the benches of this name; all of them when absent
    bench: Option<String>,
}

/// One bench target of the workspace.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bench {
    package: String,
    name: String,
}

/// Builds the benches, then runs them one after the other.
///
/// # Errors
/// An unknown name, no Postgres, or a bench that fails.
pub(crate) fn run(options: &Options, phases: &mut Phases) -> Result<()> {
    let benches = chosen(options)?;
    phases.run("build the benches", || {
        benches.iter().try_for_each(|bench| execute(bench.command().arg("--no-run")))
    })?;
    let postgres = phases.run("start Postgres", || Postgres::provide(Durability::Full))?;
    println!("\n{}\n", heading(&postgres)?);
    for bench in &benches {
        phases.run(&format!("bench {}", bench.name), || {
            execute(bench.command().env(URL_VARIABLE, postgres.url()))
        })?;
    }
    Ok(())
}

fn chosen(options: &Options) -> Result<Vec<Bench>> {
    let mut benches = Bench::all()?;
    if let Some(name) = &options.bench {
        benches.retain(|bench| bench.name == *name);
        if benches.is_empty() {
            bail!("no bench {name:?} in the workspace");
        }
    }
    Ok(benches)
}

impl Bench {
    /// Every bench target of the workspace, in order of package and name.
    fn all() -> Result<Vec<Self>> {
        let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec()?;
        let mut benches: Vec<_> = metadata
            .packages
            .iter()
            .flat_map(|package| package.targets.iter().map(move |target| (package, target)))
            .filter(|(_, target)| target.kind.contains(&TargetKind::Bench))
            .map(|(package, target)| Self {
                package: package.name.to_string(),
                name: target.name.clone(),
            })
            .collect();
        benches.sort();
        Ok(benches)
    }

    fn command(&self) -> Command {
        let mut command = cargo("bench --quiet --locked --package");
        command.args([&self.package, "--bench", &self.name]);
        command
    }
}

/// The heading above a set of figures: commit, processor, memory, kernel, compiler and Postgres.
fn heading(postgres: &Postgres) -> Result<String> {
    let commit = output(at_root("git").args(["log", "-1", "--format=%cs, commit %h"]))?;
    let changed = output(at_root("git").args(["status", "--porcelain", "--untracked-files=no"]))?;
    let mark = if changed.is_empty() { "" } else { " and uncommitted changes" };
    let rustc = output(Command::new("rustc").arg("--version"))?;
    let kernel = output(Command::new("uname").arg("-sr"))?;
    let machine = machine().context("cannot tell the machine from /proc")?;
    let postgres = postgres.version()?;
    Ok(format!("## {commit}{mark}\n\n{machine}; {kernel}; {rustc}; {postgres}."))
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
