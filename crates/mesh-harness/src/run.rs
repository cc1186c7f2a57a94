//! Carries out the phases: each begins, is watched until all is right, and then until the server is quiet.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::sleep;

use crate::cli;
use crate::fleet::{Expectation, Fleet, Verdict};
use crate::process::Process;
use crate::report::{Phase, Server, Spread, millis};
use crate::view::Counts;

/// How often it is looked whether all is right.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How often the server's use is looked at.
const MEASURE_EVERY: Duration = Duration::from_millis(100);

/// A server is quiet if within [`QUIET_FOR`] it uses less than this: a hundredth of a core.
const QUIET_CPU: Duration = Duration::from_millis(10);

const QUIET_FOR: Duration = Duration::from_secs(1);

/// What a run has besides its nodes.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) fleet: Fleet,
    pub(crate) server: Option<Process>,
    pub(crate) own: Process,
    pub(crate) limit: Duration,
    pub(crate) quiet_limit: Duration,
    /// How many nodes `join` lets in.
    pub(crate) first: usize,
}

/// A phase under way.
#[derive(Debug)]
struct Begun {
    name: String,
    at: Instant,
    counts: Counts,
    cuts: u64,
    server_cpu: Duration,
    own_cpu: Duration,
    measured_at: Instant,
}

/// What a look at all nodes tells.
#[derive(Debug, Default)]
struct Look {
    verdict: Verdict,
    expectation: Option<Expectation>,
}

impl Run {
    /// Carries out one phase.
    pub(crate) async fn phase(&mut self, phase: &cli::Phase) -> Result<Phase> {
        match phase {
            cli::Phase::Join => self.join("join", self.first).await,
            cli::Phase::JoinOne => self.join("join-one", 1).await,
            cli::Phase::Hold(time) => self.hold(*time).await,
        }
    }

    async fn join(&mut self, name: &str, count: usize) -> Result<Phase> {
        let begun = self.begin(name);
        let before = self.fleet.joined;
        self.fleet.join(count);
        let look = self.until_right(&begun).await;
        let mut phase = self.end(&begun, &look).await;
        let joined = &self.fleet.members()[before..];
        let times = joined.iter().filter_map(|node| node.view().registered_in);
        phase.registration = Spread::of(times.collect());
        Ok(phase)
    }

    async fn hold(&mut self, time: Duration) -> Result<Phase> {
        let begun = self.begin("hold");
        sleep(time).await;
        let look = self.until_right(&begun).await;
        Ok(self.end(&begun, &look).await)
    }

    fn begin(&mut self, name: &str) -> Begun {
        let server_cpu = self.server_cpu();
        let own_cpu = self.own.cpu();
        let (counts, cuts) = (self.fleet.counts(), self.fleet.cuts());
        let at = Instant::now();
        Begun { name: name.to_owned(), at, counts, cuts, server_cpu, own_cpu, measured_at: at }
    }

    /// Waits until every node sees what it should, or the limit is over.
    async fn until_right(&mut self, begun: &Begun) -> Look {
        let bar = bar(&begun.name, self.fleet.joined);
        let mut look = Look::default();
        let mut measured_at = begun.measured_at;
        loop {
            if look.expectation.is_none() {
                look.expectation = self.fleet.expectation();
            }
            look.verdict = match &look.expectation {
                Some(expectation) => self.fleet.verdict(expectation),
                None => self.fleet.verdict_of_strangers(),
            };
            bar.set_position(look.verdict.right_nodes as u64);
            let is_right = look.verdict.right_nodes == self.fleet.joined;
            if is_right || begun.at.elapsed() > self.limit {
                bar.finish_and_clear();
                return look;
            }
            if measured_at.elapsed() > MEASURE_EVERY {
                // Threads that end take the finer half of what is known of them along.
                self.server_cpu();
                measured_at = Instant::now();
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Measures, waits until the server is quiet, and sums up.
    async fn end(&mut self, begun: &Begun, look: &Look) -> Phase {
        let converged_cpu = self.server_cpu().saturating_sub(begun.server_cpu);
        let settled = self.fleet.settled_at(begun.at);
        let wall = settled.iter().max().map_or(begun.at.elapsed(), |last| *last - begun.at);
        let quiet = self.until_quiet().await;
        // Whatever came late counts too.
        let verdict = match &look.expectation {
            Some(expectation) => self.fleet.verdict(expectation),
            None => look.verdict,
        };
        let counts = self.fleet.counts().since(&begun.counts);
        let own_cpu = self.own.cpu().saturating_sub(begun.own_cpu);
        let server = self.server.as_ref().map(|server| Server {
            cpu_until_converged_s: converged_cpu.as_secs_f64(),
            cpu_until_quiet_s: quiet.cpu.saturating_sub(begun.server_cpu).as_secs_f64(),
            quiet_ms: quiet.at.map(|at| millis(at.saturating_duration_since(begun.at))),
            memory_peak_bytes: server.memory_peak(),
        });
        Phase {
            name: begun.name.clone(),
            nodes: self.fleet.joined,
            converged: verdict.right_nodes,
            wall_ms: millis(wall),
            convergence: Spread::of(settled.into_iter().map(|at| at - begun.at).collect()),
            wrong: verdict.wrong,
            missing: verdict.missing,
            extra: counts.duplicates,
            strays: counts.strays,
            messages: counts.messages,
            keep_alives: counts.keep_alives,
            bytes: counts.bytes,
            json_bytes: counts.json_bytes,
            cuts: self.fleet.cuts() - begun.cuts,
            errors: self.fleet.take_errors(),
            server,
            own_cpu_s: own_cpu.as_secs_f64(),
            own_memory_peak_bytes: self.own.memory_peak(),
            ..Phase::default()
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
