//! The way in: commands to the writer, snapshots from it.

use std::sync::Arc;
use std::time::Duration;

use mesh_state::{Command, Outcome, Refusal, Snapshot};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use crate::Span;
use crate::epochs::Epochs;
use crate::soft::Soft;

/// Longest wait for the answer to a command. Clients and their proxies are patient for ten seconds and more; a database
/// that takes longer is as good as away.
pub const ANSWER_MAX: Duration = Duration::from_secs(4);

/// Why a command did not happen.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// The state refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The database did not take it; nothing has changed.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// Too many commands wait already; nothing has changed.
    #[error("too many changes wait: try again in a moment")]
    Busy,
    /// No answer in time. What was asked for may still happen, so it is worth asking again for the same.
    #[error(
        "the database has not answered in time: look whether the change was made, or try again"
    )]
    TimedOut,
    /// The server is stopping.
    #[error("the server is stopping")]
    Closed,
}

/// A command on its way, and who waits for its outcome. Soft ones have nobody.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) command: Command,
    /// When it was handed in.
    pub(crate) at: Instant,
    /// `None` if nobody waits.
    pub(crate) reply: Option<oneshot::Sender<Result<Outcome, SubmitError>>>,
}

/// The node store, as everybody else sees it. Clones speak to the same one.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    soft: Arc<Soft>,
    epochs: Arc<Epochs>,
}

impl Handle {
    pub(crate) fn new(
        requests: mpsc::Sender<Request>,
        soft: Arc<Soft>,
        epochs: Arc<Epochs>,
    ) -> Self {
        Self { requests, soft, epochs }
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.epochs.newest()
    }

    /// The newest epoch's number, and word of each later one.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.epochs.subscribe()
    }

    /// What lies between the epoch `cursor` and the newest; `None` if that is more than
    /// [`EPOCHS_MAX`](crate::EPOCHS_MAX) epochs ago.
    pub fn since(&self, cursor: u64) -> Option<Span> {
        self.epochs.since(cursor)
    }

    /// How many commands wait for the writer, [`QUEUE_COMMANDS_MAX`](crate::QUEUE_COMMANDS_MAX) at most.
    pub fn queue_depth(&self) -> usize {
        self.requests.max_capacity() - self.requests.capacity()
    }

    /// How many soft commands wait beside the queue: at most a few for each node.
    pub fn soft_depth(&self) -> usize {
        self.soft.len()
    }

    /// Has a command carried out and waits until it is on disk and published, for [`ANSWER_MAX`] at most.
    ///
    /// # Errors
    /// [`SubmitError`]; it is [`SubmitError::Busy`] at once while the queue is full. Whoever stops waiting before the
    /// writer has come to the command has not asked for it.
    pub async fn submit(&self, command: Command) -> Result<Outcome, SubmitError> {
        let (reply, outcome) = oneshot::channel();
        let request = Request { command, at: Instant::now(), reply: Some(reply) };
        self.requests.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SubmitError::Busy,
            mpsc::error::TrySendError::Closed(_) => SubmitError::Closed,
        })?;
        let answer = timeout(ANSWER_MAX, outcome).await.map_err(|_| SubmitError::TimedOut)?;
        answer.map_err(|_| SubmitError::Closed)?
    }

    /// Hands over a command that may be lost in a crash and whose outcome nobody needs: an update of a node, the end of
    /// its stream, the use of an API key. It never waits, and takes the place of an earlier one of its kind.
    pub fn submit_soft(&self, command: Command) {
        self.soft.put(command);
    }
}
