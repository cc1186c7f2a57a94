//! The writer task: commands in, one transaction and one snapshot per batch out.

use std::error::Error;
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
use crate::outage::{Outage, error_chain};
use crate::soft::Soft;
use crate::{Handle, Persist, PersistError, SubmitError};

/// Most commands in one batch: beyond it a transaction's fixed cost is no longer felt.
pub const BATCH_COMMANDS_MAX: usize = 256;

/// Most commands that wait for the writer: a second or less of work. When it is full, whoever submits is told to come
/// back later.
pub const QUEUE_COMMANDS_MAX: usize = 4096;

/// Longest sleep before the writer looks at the clock again, which may have been set.
const SLEEP_MAX: Duration = Duration::from_mins(1);

/// How long soft commands and chores that the database did not take are put off.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

type Answer = Result<Outcome, SubmitError>;

/// The one task that changes a tailnet.
#[derive(Debug)]
pub struct Writer<P> {
    state: State,
    persist: Arc<P>,
    clock: Arc<dyn Clock>,
    epochs: Arc<Epochs>,
    requests: mpsc::Receiver<Request>,
    soft: Arc<Soft>,
    /// From when on soft commands are worth a try.
    soft_at: Instant,
    outage: Outage,
    /// Whether the database is somebody else's.
    is_overtaken: bool,
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
        let soft = Arc::<Soft>::default();
        let handle = Handle::new(sender, soft.clone(), epochs.clone());
        let now = Instant::now();
        let writer = Self {
            state,
            persist,
            clock,
            epochs,
            requests,
            soft,
            soft_at: now,
            outage: Outage::default(),
            is_overtaken: false,
            batch_max: BATCH_COMMANDS_MAX,
            sweep_at: now,
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

    /// Carries out commands until `stop`; then what still waits, and returns. Returns early if somebody else writes to
    /// the database: whoever reads it anew, by starting again, is right.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(self.batch_max);
        while !self.is_overtaken {
            let some_wait = async {
                sleep_until(self.soft_at).await;
                self.soft.some_wait().await;
            };
            tokio::select! {
                // Rank: stopping, commands, soft ones, chores.
                biased;
                () = stop.cancelled(), if !self.requests.is_closed() => self.requests.close(),
                taken = self.requests.recv_many(&mut batch, self.batch_max) => {
                    if taken == 0 {
                        return self.flush().await;
                    }
                    self.gather(&mut batch).await;
                    self.commit_all(std::mem::take(&mut batch)).await;
                }
                () = some_wait => self.commit_all(Vec::new()).await,
                () = sleep_until(self.sweep_at) => self.sweep().await,
            }
        }
    }

    /// Takes more commands: of those who were about to ask, and get to run first.
    async fn gather(&mut self, batch: &mut Vec<Request>) {
        if batch.len() < self.batch_max {
            tokio::task::yield_now().await;
        }
        while batch.len() < self.batch_max
            && let Ok(request) = self.requests.try_recv()
        {
            batch.push(request);
        }
    }

    /// Carries out the soft commands that are left at the end, if the database lets us.
    async fn flush(&mut self) {
        while self.soft.len() > 0 && !self.outage.is_on() {
            self.commit_all(Vec::new()).await;
        }
    }

    /// Carries out a batch, after the soft commands that wait. Who no longer waits for an answer has gone.
    async fn commit_all(&mut self, mut requests: Vec<Request>) {
        requests.retain(|request| request.reply.as_ref().is_some_and(|reply| !reply.is_closed()));
        let mut batch = if self.soft_at <= Instant::now() {
            self.soft.take(self.batch_max)
        } else {
            Vec::new()
        };
        batch.append(&mut requests);
        let Some(oldest) = batch.iter().map(|request| request.at).min() else { return };
        self.metrics.took_batch(batch.len(), oldest);
        let now = self.clock.now();
        let (draft, batch, answers) = apply_all(self.draft(now), batch, now, &self.metrics).await;
        match self.commit(draft, now).await {
            Ok(()) => {
                for (request, answer) in batch.into_iter().zip(answers) {
                    self.reply(request, answer);
                }
            }
            // Refusals too: what one of them rests on may have been in the same batch.
            Err(PersistError::Unavailable(error)) => {
                for request in batch {
                    self.give_back(request, &*error);
                }
            }
            Err(conflict @ PersistError::Conflict { .. }) => {
                tracing::warn!(%conflict, "a batch is repeated command by command");
                for request in batch {
                    self.commit_one(request).await;
                }
            }
            Err(PersistError::Overtaken) => {}
        }
        self.schedule_sweep(Duration::ZERO);
    }

    async fn commit_one(&mut self, request: Request) {
        let now = self.clock.now();
        let (draft, mut requests, mut answers) =
            apply_all(self.draft(now), vec![request], now, &self.metrics).await;
        let (Some(request), Some(answer)) = (requests.pop(), answers.pop()) else { return };
        match self.commit(draft, now).await {
            Ok(()) => self.reply(request, answer),
            Err(PersistError::Conflict { what }) => {
                tracing::error!(
                    what,
                    "the database refused a change, as somebody else has written to it: start the server again to \
                     have it read what is there"
                );
                self.reply(request, answer.and(Err(Refusal::Conflict.into())));
            }
            Err(PersistError::Unavailable(error)) => self.give_back(request, &*error),
            Err(PersistError::Overtaken) => {}
        }
    }

    /// Answers whoever waits; who has gone meanwhile gets what was decided all the same. Only a stream that nobody opens
    /// any more must not keep its node online.
    fn reply(&self, request: Request, answer: Answer) {
        let Request { command, reply: Some(reply), .. } = request else { return };
        if let (Command::Connect { node, .. }, Err(Ok(Outcome::Connected(session)))) =
            (command, reply.send(answer))
        {
            self.soft.put(Command::Disconnect { node, session });
        }
    }

    /// Says that the database is away. A soft command waits for it to come back: its client believes to have told us.
    fn give_back(&self, request: Request, error: &dyn Error) {
        match request.reply {
            Some(_) => self.reply(request, Err(SubmitError::Unavailable(error.to_string()))),
            None => self.soft.put_back(request.command, request.at),
        }
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

    /// Makes a draft durable, and publishes it as the state at `now` if there is any news in it; on an error it is
    /// dropped.
    async fn commit(&mut self, draft: Draft, now: Timestamp) -> Result<(), PersistError> {
        if let Some(batch) = draft.batch(now) {
            let since = Instant::now();
            let committed = self.persist.commit(&batch).await;
            self.metrics.committed(since);
            self.note(&committed);
            committed?;
        }
        let since = Instant::now();
        let has_news = draft.has_news();
        let (state, changes) = draft.finish();
        self.state = state;
        if has_news {
            self.epochs.publish(self.state.snapshot(now), changes);
            self.metrics.published(since);
        }
        Ok(())
    }

    /// Notes how it went with the database.
    fn note(&mut self, committed: &Result<(), PersistError>) {
        match committed {
            Ok(()) => self.outage.ends(),
            Err(error) => {
                self.metrics.failed(error);
                self.soft_at = Instant::now() + RETRY_PAUSE;
                match error {
                    PersistError::Conflict { .. } => {}
                    PersistError::Unavailable(error) => self.outage.goes_on(&**error),
                    PersistError::Overtaken => {
                        self.is_overtaken = true;
                        tracing::error!(
                            "somebody else has written to the database, or it was set back to a backup: only one \
                             server may use it; this one ends, and reads what is there when it is started again"
                        );
                    }
                }
            }
        }
    }

    async fn sweep(&mut self) {
        let now = self.clock.now();
        let mut retry = Duration::ZERO;
        if self.is_sweep_due(now)
            && let Err(error) = self.commit(self.draft(now), now).await
        {
            tracing::debug!(error = error_chain(&error), "chores are put off");
            retry = RETRY_PAUSE;
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
