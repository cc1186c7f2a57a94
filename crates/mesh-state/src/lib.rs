//! The state of a tailnet: commands in, snapshots and change sets out.
//!
//! [`Draft::apply`] decides what a [`Command`] does, purely: the same state, command and [`Context`] give the
//! same outcome. It works on a draft; the caller commits the [`Draft::batch`] and publishes what [`Draft::finish`] gives, or
//! drops the draft and nothing has happened. How batches reach a disk is `mesh-store`'s and `mesh-db`'s business.

mod addresses;
mod admin;
mod command;
mod deadlines;
mod labels;
mod login;
mod nodes;
mod policy;
mod register;
mod settings;
mod snapshot;
mod state;
mod write;

pub use command::{
    Command, Context, NewPolicy, NewPreauthKey, NewSecret, NewUser, NodeUpdate, Outcome, Refusal,
    Registration,
};
pub use login::{Login, LoginState, Logins};
pub use policy::{POLICY_HISTORY_BYTES_MAX, POLICY_VERSIONS_MAX, policy_digest};
pub use settings::{Allocation, LoginLimits, Settings};
pub use snapshot::{ChangeSet, Snapshot};
pub use state::{Draft, State};
pub use write::{Batch, Counters, Loaded, Write};
