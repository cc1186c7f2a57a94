//! The only SQL: persists what the node store commits, in SQLite or in Postgres.
//!
//! [`Database`] implements [`mesh_store::Persist`]. A batch becomes one transaction whose first statement
//! raises the revision of the tailnet's row, from the value the writer knows: whoever lost that race has
//! written nothing. Both engines run the same statements; `engine.rs` holds what they differ in. The schema
//! is in `migrations/` at the root of the repository.

mod database;
mod engine;
mod failure;
mod load;
mod migrations;
mod open;
mod options;
mod record;
mod statement;
mod store;
mod tables;
mod transaction;

pub use database::Database;
pub use open::OpenError;
pub use options::{Options, PostgresOptions};
