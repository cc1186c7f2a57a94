//! What the node store needs of a database.

use std::error::Error;
use std::future::Future;

use mesh_model::TailnetId;
use mesh_state::{Batch, Loaded};
use thiserror::Error;

/// Why a batch is not on disk.
#[derive(Debug, Error)]
pub enum PersistError {
    /// A unique constraint or a guard of the database said no: a row is not what memory believes. Nothing was written.
    #[error("the database refused the change: {what}")]
    Conflict {
        /// Which guard or constraint.
        what: String,
    },
    /// The tailnet's revision is another: somebody else has written to it, or the database was set back to an earlier
    /// day. Nothing was written, and nothing can be from here.
    #[error("the database holds changes that are not ours, or has lost some that were")]
    Overtaken,
    /// The database could not be reached or failed. Nothing was written, as far as can be known: an
    /// implementation whose commit got no answer finds out by the batch's `change` row before it says so.
    #[error("the database failed")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
}

/// A database that keeps a tailnet.
pub trait Persist: Send + Sync + 'static {
    /// Reads a whole tailnet, and makes its row if there is none.
    fn load(&self, tailnet: TailnetId)
    -> impl Future<Output = Result<Loaded, PersistError>> + Send;

    /// Writes a batch in one transaction; it is durable when this returns.
    fn commit(&self, batch: &Batch) -> impl Future<Output = Result<(), PersistError>> + Send;

    /// Whether the database answers.
    fn ping(&self) -> impl Future<Output = Result<(), PersistError>> + Send;
}
