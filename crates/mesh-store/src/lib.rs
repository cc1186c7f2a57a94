//! The node store: one writer task around the state.
//!
//! Every change is a [`Command`](mesh_state::Command) to the writer. It takes what waits, carries it out on a
//! draft, has the draft's batch written in one transaction, publishes one snapshot, and then answers: what was
//! answered is on disk, and whoever has an answer finds it in the snapshot. If the database says no, the draft
//! is dropped and nothing has happened. Deciding is `mesh-state`'s, SQL is `mesh-db`'s.

mod epochs;
mod handle;
mod metrics;
mod outage;
mod persist;
mod soft;
mod writer;

pub use epochs::{EPOCHS_MAX, Span};
pub use handle::{ANSWER_MAX, Handle, SubmitError};
pub use metrics::Metrics;
pub use persist::{Persist, PersistError};
pub use writer::{BATCH_COMMANDS_MAX, QUEUE_COMMANDS_MAX, Writer};
