//! The way in: commands to the writer, snapshots from it.

use std::sync::Arc;

use mesh_state::{Command, Outcome, Refusal, Snapshot};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::Span;
use crate::epochs::Epochs;

/// Why a command did not happen.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// The state refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The database did not take it; nothing has changed.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The server is stopping.
    #[error("the server is stopping")]
    Closed,
}

/// A command on its way, and who waits for its outcome.
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
    epochs: Arc<Epochs>,
}

impl Handle {
    pub(crate) fn new(requests: mpsc::Sender<Request>, epochs: Arc<Epochs>) -> Self {
        Self { requests, epochs }
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.epochs.newest()
    }

    /// The newest epoch's number, and word of each later one.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.epochs.subscribe()
    }

    /// What lies between the epoch `cursor` and the newest; `None` if that is too long ago to be known.
    pub fn since(&self, cursor: u64) -> Option<Span> {
        self.epochs.since(cursor)
    }

    /// How many commands wait for the writer, [`QUEUE_COMMANDS_MAX`](crate::QUEUE_COMMANDS_MAX) at most.
    pub fn queue_depth(&self) -> usize {
        self.requests.max_capacity() - self.requests.capacity()
    }

    /// Has a command carried out and waits until it is on disk and published.
    pub async fn submit(&self, command: Command) -> Result<Outcome, SubmitError> {
        let (reply, outcome) = oneshot::channel();
        let request = Request { command, at: Instant::now(), reply: Some(reply) };
        self.requests.send(request).await.map_err(|_| SubmitError::Closed)?;
        outcome.await.map_err(|_| SubmitError::Closed)?
    }

    /// Hands over a command that may be lost and whose outcome nobody needs. Waits only while the queue is
    /// full.
    pub async fn submit_soft(&self, command: Command) {
        debug_assert!(command.is_soft(), "a durable command wants its answer");
        // A store that is stopping takes no more soft commands, and clients send them again.
        let request = Request { command, at: Instant::now(), reply: None };
        let _ = self.requests.send(request).await;
    }
}
