//! The scratch world of one scenario, and the way in for every scenario.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::time::timeout;

use crate::database::{Database, Engine};
use crate::disk::SmallDisk;
use crate::log::{self, LogLine};

/// How long a scenario may take before it counts as hung.
const SCENARIO_MAX: Duration = Duration::from_mins(3);

/// How many lines of each log a failed scenario shows.
const LOG_LINES: usize = 40;

/// Held for writing by a scenario that judges times, which others would spoil.
static QUIET: RwLock<()> = RwLock::new(());

/// Whether a scenario bears others beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Others may run at the same time.
    Welcome,
    /// It judges times, or uses the machine to the full: nothing else runs meanwhile.
    Unwelcome,
}

/// A directory and a database.
#[derive(Debug)]
pub struct Lab {
    pub(crate) database: Database,
    directory: TempDir,
    /// Parts of the alarms that the scenario provokes.
    provoked: Mutex<Vec<&'static str>>,
    /// Parts of alarms that it may cause, or not.
    tolerated: Mutex<Vec<&'static str>>,
}

impl Lab {
    fn create(engine: Engine) -> Result<Self> {
        let directory = TempDir::with_prefix("mesh-")?;
        // The random part of the directory's name is unique on this machine.
        let name = directory.path().file_name().and_then(|name| name.to_str());
        let label =
            name.context("invariant: the prefix and letters")?.replace('-', "_").to_lowercase();
        let label = format!("{label}_{}", std::process::id());
        Ok(Self {
            database: Database::create(engine, &label)?,
            directory,
            provoked: Mutex::default(),
            tolerated: Mutex::default(),
        })
    }

    /// Says that the scenario provokes a WARN or ERROR line of the server, and which: one with `part` in its message.
    pub fn provokes(&self, part: &'static str) {
        self.provoked.lock().unwrap_or_else(PoisonError::into_inner).push(part);
    }

    /// The same, if it depends on the moment whether the line comes.
    pub fn tolerates(&self, part: &'static str) {
        self.tolerated.lock().unwrap_or_else(PoisonError::into_inner).push(part);
    }

    /// Puts the directory of a server that has not started yet on a disk of `bytes`.
    pub fn small_disk(&self, bytes: u64) -> Result<SmallDisk> {
        SmallDisk::mount(&self.directory(crate::server::DIRECTORY)?, bytes)
    }

    /// A directory of this name in the lab, made if missing.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.path().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// The log file of a server or of a node.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.log"))
    }

    /// Fails on a WARN or ERROR line of the server that the scenario did not mean to cause, and if one that it did is missing.
    fn check_alarms(&self) -> Result<()> {
        let lines = log::read(&self.log(crate::server::LOG))?;
        ensure!(!lines.is_empty(), "the server logged nothing, or not in JSON");
        let provoked = self.provoked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut alarms: Vec<_> = lines.into_iter().filter(LogLine::is_alarm).collect();
        for part in provoked.iter() {
            let before = alarms.len();
            alarms.retain(|line| !line.message.contains(part));
            ensure!(alarms.len() < before, "the server did not log {part:?} as WARN or ERROR");
        }
        let tolerated = self.tolerated.lock().unwrap_or_else(PoisonError::into_inner);
        alarms.retain(|line| !tolerated.iter().any(|part| line.message.contains(part)));
        ensure!(alarms.is_empty(), "the server logged what was not expected: {alarms:#?}");
        Ok(())
    }

    /// The last lines of every log.
    fn tell(&self) -> String {
        let mut logs: Vec<PathBuf> = fs::read_dir(self.directory.path())
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        logs.sort();
        let tail =
            |path: &PathBuf| format!("==> {}\n{}\n", path.display(), log::tail(path, LOG_LINES));
        logs.iter().map(tail).collect()
    }
}

/// Runs a scenario in a lab of its own. The test fails with everything that helps to see why.
pub fn run(engine: Engine, company: Company, scenario: impl AsyncFnOnce(&Lab) -> Result<()>) {
    run_within(SCENARIO_MAX, engine, company, scenario);
}

/// As [`run`], for what takes its time.
pub fn run_within(
    deadline: Duration,
    engine: Engine,
    company: Company,
    scenario: impl AsyncFnOnce(&Lab) -> Result<()>,
) {
    let (_shared, _exclusive) = match company {
        Company::Welcome => (Some(QUIET.read().unwrap_or_else(PoisonError::into_inner)), None),
        Company::Unwelcome => (None, Some(QUIET.write().unwrap_or_else(PoisonError::into_inner))),
    };
    let mut lab = match Lab::create(engine) {
        Ok(lab) => lab,
        Err(error) => panic!("{error:#}"),
    };
    let outcome = play(&lab, deadline, scenario);
    if let Err(error) = outcome {
        let told = lab.tell();
        lab.directory.disable_cleanup(true);
        panic!("{told}\n{error:#}\n(all of it is in {})", lab.directory.path().display());
    }
}

fn play(
    lab: &Lab,
    deadline: Duration,
    scenario: impl AsyncFnOnce(&Lab) -> Result<()>,
) -> Result<()> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        timeout(deadline, scenario(lab))
            .await
            .with_context(|| format!("the scenario took longer than {deadline:?}"))?
    })?;
    lab.check_alarms()
}
