//! The writer task: commands in, one transaction and one snapshot per batch out.

use std::sync::Arc;
use std::time::Duration;

use mesh_model::{Clock, Timestamp};
use mesh_state::{Command, Context, Draft, Outcome, Refusal, State};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::epochs::Epochs;
use crate::handle::Request;
use crate::metrics::Metrics;
use crate::{Handle, Persist, PersistError, SubmitError};

/// Most commands in one batch: beyond it a transaction's fixed cost is no longer felt.
pub const BATCH_COMMANDS_MAX: usize = 256;

/// Most commands that wait for the writer. When it is full, whoever submits waits.
pub const QUEUE_COMMANDS_MAX: usize = 4096;

/// Longest sleep before the writer looks at the clock again, which may have been set.
const SLEEP_MAX: Duration = Duration::from_mins(1);

/// How long a sweep that the database refused is put off.
const SWEEP_RETRY: Duration = Duration::from_secs(1);

type Answer = Result<Outcome, SubmitError>;

/// The one task that changes a tailnet.
#[derive(Debug)]
pub struct Writer<P> {
    state: State,
    persist: Arc<P>,
    clock: Arc<dyn Clock>,
    epochs: Arc<Epochs>,
    requests: mpsc::Receiver<Request>,
    /// The most commands it takes in one batch.
    batch_max: usize,
    sweep_at: Instant,
    metrics: Metrics,
}

impl<P: Persist> Writer<P> {
    /// Makes a writer around a state, and the handle to it.
    pub fn new(state: State, persist: Arc<P>, clock: Arc<dyn Clock>) -> (Self, Handle) {
        let (sender, requests) = mpsc::channel(QUEUE_COMMANDS_MAX);
        let epochs = Arc::new(Epochs::new(state.snapshot(clock.now())));
        let handle = Handle::new(sender, epochs.clone());
        let sweep_at = Instant::now();
        let writer = Self {
            state,
            persist,
            clock,
            epochs,
            requests,
            batch_max: BATCH_COMMANDS_MAX,
            sweep_at,
            metrics: Metrics::default(),
        };
        (writer, handle)
    }

    /// Limits batches to fewer commands, to measure what batching is worth.
    #[must_use]
    pub fn with_batch_max(mut self, commands: usize) -> Self {
        self.batch_max = commands.clamp(1, BATCH_COMMANDS_MAX);
        self
    }

    /// Measures into `metrics`.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Carries out commands until `stop`; then what still waits, and returns.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(self.batch_max);
        loop {
            tokio::select! {
                // Rank: stopping, commands, chores.
                biased;
                () = stop.cancelled(), if !self.requests.is_closed() => self.requests.close(),
                taken = self.requests.recv_many(&mut batch, self.batch_max) => {
                    if taken == 0 {
                        return;
                    }
                    self.commit_all(std::mem::take(&mut batch)).await;
                }
                () = sleep_until(self.sweep_at) => self.sweep().await,
            }
        }
    }

    async fn commit_all(&mut self, requests: Vec<Request>) {
        if let Some(oldest) = requests.first() {
            self.metrics.took_batch(requests.len(), oldest.at);
        }
        let now = self.clock.now();
        let (draft, requests, answers) =
            apply_all(self.draft(now), requests, now, &self.metrics).await;
        match self.commit(draft, now).await {
            Ok(()) => {
                for (request, answer) in requests.into_iter().zip(answers) {
                    reply(request, answer);
                }
            }
            Err(PersistError::Unavailable(error)) => {
                tracing::error!(error = error_chain(&*error), "the database did not take a batch");
                // Refusals too: what one of them rests on may have been in the same batch.
                for request in requests {
                    reply(request, Err(SubmitError::Unavailable(error.to_string())));
                }
            }
            Err(conflict @ PersistError::Conflict { .. }) => {
                tracing::warn!(%conflict, "a batch is repeated command by command");
                for request in requests {
                    self.commit_one(request).await;
                }
            }
        }
        self.schedule_sweep(Duration::ZERO);
    }

    async fn commit_one(&mut self, request: Request) {
        let now = self.clock.now();
        let (draft, mut requests, mut answers) =
            apply_all(self.draft(now), vec![request], now, &self.metrics).await;
        let (Some(request), Some(answer)) = (requests.pop(), answers.pop()) else { return };
        let answer = match self.commit(draft, now).await {
            Ok(()) => answer,
            Err(PersistError::Conflict { what }) => {
                tracing::error!(what, "the database refused a command");
                answer.and(Err(Refusal::Conflict.into()))
            }
            Err(PersistError::Unavailable(error)) => {
                Err(SubmitError::Unavailable(error.to_string()))
            }
        };
        reply(request, answer);
    }

    /// A draft in which everything has been done that has fallen due by `now`: no snapshot shows a key as
    /// expired that no change set tells of.
    fn draft(&self, now: Timestamp) -> Draft {
        let mut draft = self.state.draft();
        if self.is_sweep_due(now) {
            let swept = draft.apply(&Command::Sweep, &context(now));
            debug_assert!(swept.is_ok(), "a sweep is never refused");
        }
        draft
    }

    fn is_sweep_due(&self, now: Timestamp) -> bool {
        self.state.next_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Makes a draft durable and publishes it as the state at `now`; on an error it is dropped.
    async fn commit(&mut self, draft: Draft, now: Timestamp) -> Result<(), PersistError> {
        if let Some(batch) = draft.batch(now) {
            let since = Instant::now();
            let committed = self.persist.commit(&batch).await;
            self.metrics.committed(since);
            committed.inspect_err(|error| self.metrics.failed(error))?;
        }
        let since = Instant::now();
        let (state, changes) = draft.finish();
        self.state = state;
        self.epochs.publish(self.state.snapshot(now), changes);
        self.metrics.published(since);
        Ok(())
    }

    async fn sweep(&mut self) {
        let now = self.clock.now();
        let mut retry = Duration::ZERO;
        if self.is_sweep_due(now)
            && let Err(error) = self.commit(self.draft(now), now).await
        {
            tracing::error!(error = error_chain(&error), "chores are put off");
            retry = SWEEP_RETRY;
        }
        self.schedule_sweep(retry);
    }

    fn schedule_sweep(&mut self, at_least: Duration) {
        let until = self.state.next_deadline().map_or(SLEEP_MAX, |at| until(at, self.clock.now()));
        self.sweep_at = Instant::now() + until.clamp(at_least, SLEEP_MAX);
    }
}

/// How long it is until `at`; no time if that has passed.
fn until(at: Timestamp, now: Timestamp) -> Duration {
    at.duration_since(now).try_into().unwrap_or(Duration::ZERO)
}

/// What one command is carried out in.
fn context(now: Timestamp) -> Context {
    // Without randomness addresses are allocated from the clock: predictable, but still never twice.
    let entropy = getrandom::u64().unwrap_or_else(|_| now.as_millisecond().unsigned_abs());
    Context { now, entropy }
}

/// Carries commands out in a draft: on a thread of their own if one of them compiles a policy, which takes a while in a
/// large tailnet.
async fn apply_all(
    mut draft: Draft,
    requests: Vec<Request>,
    now: Timestamp,
    metrics: &Metrics,
) -> (Draft, Vec<Request>, Vec<Answer>) {
    let takes_long = requests.iter().any(sets_policy);
    let metrics = metrics.clone();
    let work = move || {
        let since = Instant::now();
        let apply = |request| apply(&mut draft, request, now, &metrics);
        let answers = requests.iter().map(apply).collect();
        metrics.applied(since);
        (draft, requests, answers)
    };
    if takes_long {
        tokio::task::spawn_blocking(work).await.expect("invariant: commands do not panic")
    } else {
        work()
    }
}

fn sets_policy(request: &Request) -> bool {
    matches!(request.command, Command::SetPolicy(_))
}

fn apply(draft: &mut Draft, request: &Request, now: Timestamp, metrics: &Metrics) -> Answer {
    let since = sets_policy(request).then(Instant::now);
    let outcome = draft.apply(&request.command, &context(now));
    if let Some(since) = since {
        metrics.compiled(since);
    }
    Ok(outcome?)
}

fn reply(request: Request, answer: Answer) {
    if let Some(reply) = request.reply {
        // Whoever asked may have gone; what was decided holds all the same.
        let _ = reply.send(answer);
    }
}

/// An error and its causes in one line.
fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
