//! Follows the control server's list of nodes, and cuts off the relay who has left it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh_relay::Relay;
use reqwest::{Response, StatusCode};
use thiserror::Error;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::VerifyError;
use crate::http::{Client, error_chain};
use crate::line::{KEEP_ALIVE_PERIOD, LineError, Lines};
use crate::list::{NodeList, Telling, TooManyKeys};
use crate::rarely::Rarely;
use crate::stats::VerifyStats;

/// How long the control server may take to answer at all.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How long the whole list may take to come.
const LIST_MAX: Duration = Duration::from_mins(1);

/// How long a line may take to come: three times as long as they take at most.
const SILENCE_MAX: Duration = KEEP_ALIVE_PERIOD.saturating_mul(3);

/// How long to wait before asking again, at first and at most; doubled each time. A list that was followed for longer
/// than the longest wait starts over.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];

/// How long to wait after an API key was refused: the server counts wrong keys, and shuts out who brings many.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// Why the list is not followed any more.
#[derive(Debug, Error)]
enum FollowError {
    #[error("the control server cannot be reached: {}", error_chain(.0))]
    Unreachable(#[from] reqwest::Error),
    #[error("the control server says nothing")]
    Silent,
    #[error("the list takes too long to come")]
    Slow,
    #[error("the control server has ended it")]
    Ended,
    #[error(
        "the API key is not accepted: put one of `meshcontrol apikeys create` into its file, which is read again"
    )]
    Unauthorized,
    #[error("there is nothing to show: {}", error_chain(.0))]
    ApiKey(#[from] VerifyError),
    #[error("there is no list of nodes there: is it a meshcontrol, and as new as this one?")]
    NotFound,
    #[error("the control server answered {0}")]
    Status(StatusCode),
    #[error("the control server is not understood: {0}")]
    Line(#[from] LineError),
    #[error(transparent)]
    TooManyKeys(#[from] TooManyKeys),
}

/// The task that follows the list.
pub(crate) struct Follower {
    client: Client,
    list: Arc<NodeList>,
    relay: Relay,
    stats: Arc<VerifyStats>,
    warning: Rarely,
    /// Whether the log believes that the list is not followed.
    is_worth_a_line: bool,
}

impl Follower {
    pub(crate) fn new(
        client: Client,
        list: Arc<NodeList>,
        relay: Relay,
        stats: Arc<VerifyStats>,
    ) -> Self {
        Self { client, list, relay, stats, warning: Rarely::default(), is_worth_a_line: true }
    }

    /// Follows the list until `stop`, over as many connections as it takes.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let [pause_min, pause_max] = PAUSES;
        let mut pause = pause_min;
        loop {
            let since = Instant::now();
            let Some(Err(error)) = stop.run_until_cancelled(self.follow()).await else { return };
            self.note_end(&error);
            if since.elapsed() > pause_max {
                pause = pause_min;
            }
            let is_refused = matches!(error, FollowError::Unauthorized);
            let wait = if is_refused { REFUSED_PAUSE } else { pause };
            if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                return;
            }
            pause = (2 * pause).min(pause_max);
        }
    }

    fn note_end(&mut self, error: &FollowError) {
        self.stats.is_following.store(false, Ordering::Relaxed);
        self.stats.interruptions.fetch_add(1, Ordering::Relaxed);
        if !self.warning.is_due() {
            return;
        }
        self.is_worth_a_line = true;
        if self.stats.has_list() {
            tracing::warn!(
                %error,
                "the control server's list of nodes is not followed: nodes on the last one are served"
            );
        } else {
            tracing::warn!(
                %error,
                "the control server's list of nodes has not come yet: {}",
                if self.list.is_open() { "everybody is served" } else { "nobody is served" }
            );
        }
    }

    /// Follows the list over one connection.
    async fn follow(&mut self) -> Result<Infallible, FollowError> {
        let since = Instant::now();
        let answer = timeout(ANSWER_MAX, self.client.get()?.send()).await;
        let mut answer = accepted(answer.map_err(|_| FollowError::Silent)??)?;
        let mut telling = Telling::new(Arc::clone(&self.list));
        let mut lines = Lines::default();
        let mut line_due = Instant::now() + SILENCE_MAX;
        loop {
            if !telling.is_complete() && since.elapsed() > LIST_MAX {
                return Err(FollowError::Slow);
            }
            let bytes = timeout_at(line_due, answer.chunk()).await;
            let bytes = bytes.map_err(|_| FollowError::Silent)??;
            lines.push(&bytes.ok_or(FollowError::Ended)?);
            while let Some(line) = lines.next()? {
                line_due = Instant::now() + SILENCE_MAX;
                for key in telling.handle_line(line)? {
                    let cut = self.relay.disconnect(&key);
                    self.stats.cuts.fetch_add(cut as u64, Ordering::Relaxed);
                }
                if telling.is_complete() && !self.stats.is_following() {
                    self.note_list();
                }
            }
        }
    }

    fn note_list(&mut self) {
        self.stats.is_following.store(true, Ordering::Relaxed);
        if std::mem::take(&mut self.is_worth_a_line) {
            let nodes = self.stats.nodes.load(Ordering::Relaxed);
            tracing::info!(nodes, "the control server's list of nodes is followed");
        }
    }
}

fn accepted(answer: Response) -> Result<Response, FollowError> {
    match answer.status() {
        StatusCode::OK => Ok(answer),
        StatusCode::UNAUTHORIZED => Err(FollowError::Unauthorized),
        StatusCode::NOT_FOUND => Err(FollowError::NotFound),
        status => Err(FollowError::Status(status)),
    }
}
