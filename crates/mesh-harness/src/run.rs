//! How any phase is carried out: it begins, is watched until all is right, and then until the server is quiet.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::sleep;

use crate::fleet::Fleet;
use crate::pick::Picker;
use crate::process::Process;
use crate::report::{Phase, Server, Spread, millis};
use crate::roster::Entry;
use crate::view::Counts;

/// How often it is looked whether all is right.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How often the server's use is looked at.
const MEASURE_EVERY: Duration = Duration::from_millis(100);

/// A server is quiet if within [`QUIET_FOR`] it uses less than this: a hundredth of a core.
const QUIET_CPU: Duration = Duration::from_millis(10);

const QUIET_FOR: Duration = Duration::from_secs(1);

/// How long a sampled node may take to hold what a fresh map says: something may be under way.
const SAMPLE_LIMIT: Duration = Duration::from_secs(5);

/// What a run has besides its nodes.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) fleet: Fleet,
    pub(crate) server: Option<Process>,
    pub(crate) own: Process,
    pub(crate) picker: Picker,
    pub(crate) limit: Duration,
    pub(crate) quiet_limit: Duration,
    /// How many nodes `join` lets in.
    pub(crate) first: usize,
    /// Everybody there is, by which files name peers.
    pub(crate) roster: Vec<Entry>,
    pub(crate) restart_command: Option<String>,
    pub(crate) policy_command: Option<String>,
    /// Whom nodes should see after each policy edit.
    pub(crate) policy_expected: VecDeque<PathBuf>,
    /// Policy edits so far.
    pub(crate) edits: usize,
    /// Changes so far that somebody waited for.
    pub(crate) waits: u64,
}

/// A phase under way.
#[derive(Debug)]
pub(crate) struct Begun {
    name: String,
    pub(crate) at: Instant,
    counts: Counts,
    cuts: u64,
    server_cpu: Duration,
    own_cpu: Duration,
}

impl Begun {
    /// How long ago.
    pub(crate) fn elapsed_ms(&self) -> f64 {
        millis(self.at.elapsed())
    }
}

/// How a phase went until all was right.
#[derive(Debug, Default)]
pub(crate) struct Went {
    /// When each node came to see what it should, from the beginning.
    pub(crate) times: Vec<Duration>,
    /// Nodes that should have seen a change and did not.
    pub(crate) unseen: usize,
}

impl Run {
    pub(crate) fn begin(&mut self, name: impl Into<String>) -> Begun {
        self.fleet.forget_told();
        let (server_cpu, own_cpu) = (self.server_cpu(), self.own.cpu());
        let (counts, cuts) = (self.fleet.counts(), self.fleet.cuts());
        Begun { name: name.into(), at: Instant::now(), counts, cuts, server_cpu, own_cpu }
    }

    /// Waits until every node sees what it should, or the limit is over.
    pub(crate) async fn until_right(&mut self, begun: &Begun) -> Went {
        let mut expectation = None;
        let total = self.fleet.joined;
        self.until(begun, total, |fleet| {
            expectation = expectation.take().or_else(|| fleet.expectation());
            fleet.verdict(expectation.as_ref()).right_nodes
        })
        .await;
        let settled = self.fleet.settled_at(begun.at).into_iter();
        Went { times: settled.map(|at| at - begun.at).collect(), unseen: 0 }
    }

    /// Waits until `count` says `total`, or the limit is over.
    pub(crate) async fn until(
        &mut self,
        begun: &Begun,
        total: usize,
        mut count: impl FnMut(&Fleet) -> usize,
    ) {
        let bar = bar(&begun.name, total);
        let began_at = Instant::now();
        let mut measured_at = began_at;
        loop {
            let done = count(&self.fleet);
            bar.set_position(done as u64);
            if done >= total || began_at.elapsed() > self.limit {
                return bar.finish_and_clear();
            }
            if measured_at.elapsed() > MEASURE_EVERY {
                // Threads that end take the finer half of what is known of them along.
                self.server_cpu();
                measured_at = Instant::now();
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Measures, waits until the server is quiet, compares samples, and sums up.
    pub(crate) async fn end(&mut self, begun: Begun, went: Went) -> Phase {
        let converged_cpu = self.server_cpu().saturating_sub(begun.server_cpu);
        let wall = went.times.iter().max().copied().unwrap_or_default();
        let quiet = self.until_quiet().await;
        // Whatever came late counts too.
        let expectation = self.fleet.expectation();
        let verdict = self.fleet.verdict(expectation.as_ref());
        let counts = self.fleet.counts().since(&begun.counts);
        let own_cpu = self.own.cpu().saturating_sub(begun.own_cpu);
        let server = self.server.as_ref().map(|server| Server {
            cpu_until_converged_s: converged_cpu.as_secs_f64(),
            cpu_until_quiet_s: quiet.cpu.saturating_sub(begun.server_cpu).as_secs_f64(),
            quiet_ms: quiet.at.map(|at| millis(at.saturating_duration_since(begun.at))),
            memory_peak_bytes: server.memory_peak(),
        });
        let mut phase = Phase {
            name: begun.name,
            nodes: self.fleet.joined,
            converged: verdict.right_nodes,
            wall_ms: millis(wall),
            convergence: Spread::of(went.times),
            wrong: verdict.wrong,
            missing: verdict.missing + went.unseen,
            extra: counts.duplicates,
            strays: counts.strays,
            messages: counts.messages,
            keep_alives: counts.keep_alives,
            bytes: counts.bytes,
            json_bytes: counts.json_bytes,
            cuts: self.fleet.cuts() - begun.cuts,
            server,
            own_cpu_s: own_cpu.as_secs_f64(),
            own_memory_peak_bytes: self.own.memory_peak(),
            ..Phase::default()
        };
        if let Some((first, last)) = self.fleet.told() {
            phase.facts.insert("first_message_ms", millis(first - begun.at));
            phase.facts.insert("last_message_ms", millis(last - begun.at));
        }
        self.compare_samples(&mut phase).await;
        phase.errors = self.fleet.take_errors();
        phase
    }

    /// Compares what sampled nodes were told with fresh maps.
    async fn compare_samples(&mut self, phase: &mut Phase) {
        for node in self.fleet.sampled() {
            phase.differences.extend(node.take_complaints());
            let began_at = Instant::now();
            loop {
                let differences = match node.compare(&self.fleet.shared).await {
                    Ok(differences) => differences,
                    Err(error) => {
                        self.fleet.shared.note_error(&error.context("sample"));
                        break;
                    }
                };
                if differences.is_empty() || began_at.elapsed() > SAMPLE_LIMIT {
                    phase.samples += 1;
                    phase.differences.extend(differences);
                    break;
                }
                sleep(MEASURE_EVERY).await;
            }
        }
    }

    /// Waits until the server has used next to nothing for a second; without its process, until no message has come
    /// for one.
    async fn until_quiet(&mut self) -> Quiet {
        let began_at = Instant::now();
        let mut looks: VecDeque<(Instant, Duration, u64)> = VecDeque::new();
        loop {
            let now = Instant::now();
            let (cpu, messages) = (self.server_cpu(), self.fleet.counts().messages);
            looks.push_back((now, cpu, messages));
            while looks.len() > 2 && now - looks[1].0 >= QUIET_FOR {
                looks.pop_front();
            }
            let (at, cpu_then, messages_then) = looks[0];
            let is_quiet = match self.server {
                Some(_) => cpu.saturating_sub(cpu_then) < QUIET_CPU,
                None => messages == messages_then,
            };
            if is_quiet && now - at >= QUIET_FOR {
                return Quiet { at: Some(at), cpu: cpu_then };
            }
            if began_at.elapsed() > self.quiet_limit {
                return Quiet { at: None, cpu };
            }
            sleep(MEASURE_EVERY).await;
        }
    }

    fn server_cpu(&mut self) -> Duration {
        self.server.as_mut().map_or(Duration::ZERO, Process::cpu)
    }
}

/// When the server became quiet, and what it had used up by then.
#[derive(Debug)]
struct Quiet {
    at: Option<Instant>,
    cpu: Duration,
}

/// A bar on standard error if that is a terminal.
fn bar(name: &str, length: usize) -> ProgressBar {
    let bar = ProgressBar::new(length as u64);
    if let Ok(style) = ProgressStyle::with_template("{prefix:>15} {bar:40} {pos}/{len} {elapsed}") {
        bar.set_style(style);
    }
    bar.with_prefix(name.to_owned())
}
