//! What came out: the harness's figures, and the tables made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::adapter::Side;
use super::workload::{Session, Workload};

/// What the harness says; more than is read here.
#[derive(Clone, Debug, Deserialize)]
struct Said {
    phases: Vec<Phase>,
}

/// What it says of one phase.
#[derive(Clone, Debug, Deserialize)]
struct Phase {
    name: String,
    nodes: usize,
    converged: usize,
    wall_ms: f64,
    convergence: Option<Spread>,
    wrong: usize,
    missing: usize,
    extra: u64,
    /// In what nodes hold that were compared with a fresh map.
    #[serde(default)]
    differences: Vec<String>,
    /// What else there is to tell; names end in the unit.
    #[serde(default)]
    facts: BTreeMap<String, f64>,
    bytes: u64,
    server: Option<ServerUse>,
    own_cpu_s: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Spread {
    p50_ms: f64,
    p99_ms: f64,
}

/// What the server used up in a phase.
#[derive(Clone, Copy, Debug, Deserialize)]
struct ServerUse {
    cpu_until_converged_s: f64,
    cpu_until_quiet_s: f64,
    /// Absent: it never was.
    quiet_ms: Option<f64>,
    memory_peak_bytes: u64,
}

/// What came out of one run.
#[derive(Debug)]
pub(crate) struct Reported {
    version: String,
    /// As the harness wrote it; empty if it had to be killed.
    said: String,
    phases: Vec<Phase>,
    /// Whether stock clients saw whom they should, where there were any.
    stock: Option<Result<()>>,
}

/// All runs.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    rows: Vec<Row>,
    versions: BTreeMap<String, String>,
    /// What stock clients or the harness had to complain about.
    notes: Vec<String>,
}

#[derive(Debug)]
struct Row {
    workload: Workload,
    /// Whether the workload had its own size, which its goal is for.
    is_full_size: bool,
    /// How many nodes there were.
    nodes: usize,
    side: String,
    run: usize,
    /// None: the run did not come that far.
    phase: Option<Phase>,
    /// The phase's name, or which one it did not come to.
    what: String,
}

impl Reported {
    /// Reads what the harness said, if it came to say anything.
    pub(crate) fn new(version: String, said: String, stock: Option<Result<()>>) -> Self {
        let phases = serde_json::from_str::<Said>(&said).map(|said| said.phases);
        Self { version, said, phases: phases.unwrap_or_default(), stock }
    }

    /// What the first phase cost the server, in seconds of its processor time until it was quiet.
    ///
    /// # Errors
    /// Some node did not see what it should, or the harness said nothing.
    pub(crate) fn cpu_when_right(&self) -> Result<f64> {
        let phase = self.phases.first().context("the harness said nothing")?;
        let is_right = phase.is_right() && phase.differences.is_empty();
        ensure!(is_right, "{}: {}", phase.name, phase.verdict());
        phase.cpu().context("the harness did not see the server's process")
    }

    /// Keeps what the harness said as `directory/name.json`.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn save(&self, directory: &Path, name: &str) -> Result<()> {
        fs::create_dir_all(directory)?;
        let path = directory.join(format!("{name}.json"));
        fs::write(&path, &self.said).with_context(|| path.display().to_string())
    }
}

impl Phase {
    /// Whether everybody saw in the end whom they should, and nothing else. Differences in what they hold of each other are
    /// told, but a server that has some may still be compared.
    fn is_right(&self) -> bool {
        let is_exact = self.wrong == 0 && self.missing == 0 && self.extra == 0;
        is_exact && self.converged == self.nodes
    }

    /// Processor time until the server was quiet, in seconds.
    fn cpu(&self) -> Option<f64> {
        self.server.map(|server| server.cpu_until_quiet_s)
    }
}

impl Outcomes {
    /// Takes in a run.
    pub(crate) fn add(
        &mut self,
        session: &Session,
        is_full_size: bool,
        side: &Side,
        run: usize,
        reported: Reported,
    ) {
        self.versions.insert(side.name.clone(), reported.version);
        match reported.stock {
            Some(Ok(())) => {
                let clients = session.stock;
                let line = format!("{clients} stock clients saw exactly whom they should");
                self.notes.push(format!("{}, run {run}: {line}.", side.name));
            }
            Some(Err(error)) => {
                self.notes.push(format!("{}, run {run}: stock client {error:#}.", side.name));
            }
            None => {}
        }
        for workload in &session.workloads {
            for asked in workload.phases() {
                let is_of = |phase: &&Phase| is_part(&phase.name, asked);
                let mut phases: Vec<_> =
                    reported.phases.iter().filter(is_of).cloned().map(Some).collect();
                if phases.is_empty() {
                    phases.push(None);
                }
                let row = |phase: Option<Phase>| Row {
                    workload: *workload,
                    is_full_size,
                    nodes: session.together() + session.stock,
                    side: side.name.clone(),
                    run,
                    what: phase.as_ref().map_or((*asked).to_owned(), |phase| phase.name.clone()),
                    phase,
                };
                self.rows.extend(phases.into_iter().map(row));
            }
        }
    }

    /// Every server and its version.
    pub(crate) fn versions(&self) -> String {
        let version = |(side, version): (&String, &String)| format!("{side}: {version}");
        self.versions.iter().map(version).collect::<Vec<_>>().join("; ")
    }
}

impl Row {
    fn label(&self) -> String {
        format!("{:?} {}, {} nodes", self.workload, self.what, self.nodes)
    }

    /// Every figure of one run.
    fn line(&self) -> String {
        let Self { side, run, .. } = self;
        let label = self.label();
        let Some(phase) = &self.phase else {
            return format!("| {label} | {side} | {run} | not reached | | | | | | |");
        };
        let server = phase.server;
        let cpu = server.map_or("-".to_owned(), |server| {
            let mark = if server.quiet_ms.is_some() { "" } else { " and not quiet" };
            let converged = seconds(server.cpu_until_converged_s);
            format!("{converged} / {}{mark}", seconds(server.cpu_until_quiet_s))
        });
        let memory = server.map_or("-".to_owned(), |server| megabytes(server.memory_peak_bytes));
        let spread = phase.convergence.map_or("-".to_owned(), |spread| {
            format!("{} / {}", seconds(spread.p50_ms / 1e3), seconds(spread.p99_ms / 1e3))
        });
        let (wall, sent) = (seconds(phase.wall_ms / 1e3), megabytes(phase.bytes));
        let own = seconds(phase.own_cpu_s);
        let verdict = phase.verdict();
        format!(
            "| {label} | {side} | {run} | {cpu} | {wall} | {spread} | {memory} | {sent} | {own} | {verdict} |"
        )
    }
}

impl Phase {
    fn verdict(&self) -> String {
        let Self { wrong, missing, extra, nodes, converged, .. } = self;
        let counts = format!("{wrong} wrong, {missing} missing, {extra} extra");
        let all = (converged < nodes).then(|| format!("{converged} of {nodes} nodes"));
        let different = self.differences.len();
        let differences = self.differences.first().map(|first| {
            format!("{different} differences, such as {}", first.replace(['|', '\n'], " "))
        });
        let facts = self.facts.iter().map(|(name, value)| format!("{name} {value:.1}"));
        let parts = all.into_iter().chain([counts]).chain(differences).chain(facts);
        parts.collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_medians(f)?;
        writeln!(
            f,
            "\n| workload | server | run | server CPU until all is right / until quiet | wall | p50 / p99 | peak RSS | sent | \
             harness CPU | verdict |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|---|")?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{}", row.line()))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "\n{note}"))
    }
}

impl Outcomes {
    /// A line per workload: the median of each server, and how many times the first one's each other's is.
    fn write_medians(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sides: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !sides.contains(&&*row.side) {
                sides.push(&row.side);
            }
        }
        writeln!(f, "Server CPU until quiet, medians.\n")?;
        writeln!(f, "| workload | goal | floor | {} |", sides.join(" | "))?;
        writeln!(f, "|---|---|---|{}", "---|".repeat(sides.len()))?;
        let mut told = BTreeSet::new();
        for row in &self.rows {
            let label = row.label();
            if !told.insert(label.clone()) {
                continue;
            }
            let goal = row.is_full_size.then(|| row.workload.goal());
            let medians: Vec<_> = sides.iter().map(|side| self.median(&label, side)).collect();
            let floor = goal.map(|goal| goal.floor);
            let cell = |index: usize| match (medians[index], medians[0]) {
                (None, _) => "none finished".to_owned(),
                (Some(own), _) if index == 0 => own.beside_floor(floor),
                (Some(own), first) => own.beside(first),
            };
            let cells = (0..sides.len()).map(cell).collect::<Vec<_>>().join(" | ");
            let goal = goal.map_or_else(String::new, |goal| {
                let wall = goal.wall.map(|wall| format!(", wall {}", seconds(wall)));
                seconds(goal.cpu) + &wall.unwrap_or_default()
            });
            let floor = floor.map(seconds).unwrap_or_default();
            writeln!(f, "| {label} | {goal} | {floor} | {cells} |")?;
        }
        Ok(())
    }

    /// The medians of a server's runs of one phase that ended right.
    fn median(&self, label: &str, side: &str) -> Option<Median> {
        let rows = self.rows.iter().filter(|row| row.side == side && row.label() == label);
        let right = rows.filter_map(|row| row.phase.as_ref()).filter(|phase| phase.is_right());
        let right: Vec<&Phase> = right.collect();
        let cpu = middle(right.iter().filter_map(|phase| phase.cpu()))?;
        let wall = middle(right.iter().map(|phase| phase.wall_ms / 1e3))?;
        Some(Median { cpu, wall })
    }
}

/// The medians of some runs, in seconds.
#[derive(Clone, Copy, Debug)]
struct Median {
    cpu: f64,
    wall: f64,
}

impl Median {
    fn beside_floor(self, floor: Option<f64>) -> String {
        let times = floor.map(|floor| format!(" ({:.1} x the floor)", self.cpu / floor));
        format!("{}{}, wall {}", seconds(self.cpu), times.unwrap_or_default(), seconds(self.wall))
    }

    /// With how many times the first server's it is.
    fn beside(self, first: Option<Self>) -> String {
        let times = first.map(|first| format!(" ({:.0} x)", self.cpu / first.cpu));
        format!("{}{}, wall {}", seconds(self.cpu), times.unwrap_or_default(), seconds(self.wall))
    }
}

fn middle(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Whether a phase of the harness belongs to the one that was asked for: some tell of their parts.
fn is_part(name: &str, asked: &str) -> bool {
    name == asked || asked != "join" && name.starts_with(asked)
}

/// A time as people read it.
fn seconds(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes / 1_000_000)
}

#[cfg(test)]
mod tests;
