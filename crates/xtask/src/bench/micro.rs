//! `cargo xtask bench NAME`: the benches of the crates on a release build, with Postgres at hand.

use std::process::Command;

use anyhow::{Result, bail};
use cargo_metadata::{MetadataCommand, TargetKind};

use super::heading;
use crate::command::{cargo, execute, root};
use crate::phases::Phases;
use crate::postgres::{Durability, Postgres, URL_VARIABLE};

/// One bench target of the workspace.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bench {
    package: String,
    name: String,
}

/// Builds the benches of a name, or all, then runs them one after the other.
///
/// # Errors
/// An unknown name, no Postgres, or a bench that fails.
pub(super) fn run(name: Option<&str>, phases: &mut Phases) -> Result<()> {
    let benches = chosen(name)?;
    phases.run("build the benches", || {
        benches.iter().try_for_each(|bench| execute(bench.command().arg("--no-run")))
    })?;
    let postgres = phases.run("start Postgres", || Postgres::provide(Durability::Full))?;
    println!("\n{}\n", heading(&postgres.version()?)?);
    for bench in &benches {
        phases.run(&format!("bench {}", bench.name), || {
            execute(bench.command().env(URL_VARIABLE, postgres.url()))
        })?;
    }
    Ok(())
}

fn chosen(name: Option<&str>) -> Result<Vec<Bench>> {
    let mut benches = Bench::all()?;
    if let Some(name) = name {
        benches.retain(|bench| bench.name == name);
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
