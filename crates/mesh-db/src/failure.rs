//! Why a transaction did not do what it was for.

use std::time::Duration;

use mesh_store::PersistError;
use thiserror::Error;
use tokio::time::timeout;

use crate::engine::Engine;
use crate::record::{RowError, Unfit};

/// Why a transaction did not do what it was for.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// A guard or a constraint said no: nothing was written.
    #[error("{0}")]
    Refused(String),
    /// The tailnet has another revision than we know: nothing was written.
    #[error("the revision is another")]
    Overtaken,
    /// There is no room left: nothing was written, and connections stay usable.
    #[error("the disk of the database is full: make room, and the server goes on by itself")]
    Full(#[source] sqlx::Error),
    /// A row on disk makes no sense.
    #[error(transparent)]
    Row(#[from] RowError),
    /// The database failed, or could not be reached.
    #[error(transparent)]
    Failed(#[from] sqlx::Error),
    /// No answer in time.
    #[error("the database did not answer in time")]
    TimedOut,
}

impl Failure {
    /// Tells what the database refuses from what it fails at. Both engines name the constraint, or its columns.
    pub(crate) fn of<E: Engine>(error: sqlx::Error) -> Self {
        match error.as_database_error() {
            Some(refusal) if E::is_refusal(refusal) => Self::Refused(refusal.message().to_owned()),
            Some(failure) if E::is_full(failure) => Self::Full(error),
            _ => Self::Failed(error),
        }
    }
}

impl Failure {
    /// Whether the database itself said so, so that its connection is in order: it takes a ROLLBACK and the next
    /// transaction.
    pub(crate) fn is_answer(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Overtaken | Self::Full(_) => true,
            Self::Row(_) | Self::Failed(_) | Self::TimedOut => false,
        }
    }
}

impl From<Unfit> for Failure {
    fn from(unfit: Unfit) -> Self {
        Self::Refused(unfit.to_string())
    }
}

impl From<Failure> for PersistError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(what) => Self::Conflict { what },
            Failure::Overtaken => Self::Overtaken,
            Failure::Row(_) | Failure::Failed(_) | Failure::Full(_) | Failure::TimedOut => {
                Self::Unavailable(Box::new(failure))
            }
        }
    }
}

/// Gives the database a limited time to answer.
pub(crate) async fn in_time<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(limit, answer).await.unwrap_or(Err(Failure::TimedOut))
}
