//! Fixtures for tests: a clock to turn, seeded keys, requests to vary, a database in memory.
//!
//! A dev-dependency of other crates, never part of the program.

mod clock;
pub mod commands;
mod database;
mod fixtures;
pub mod large;
mod naive;
pub mod network;
pub mod random;

pub use clock::{TestClock, at};
pub use database::{MemoryDatabase, Rows, RowsError};
pub use fixtures::{
    auth_id, context, disco_key, machine_key, new_preauth_key, new_user, node_key, registration,
};
pub use naive::{Naive, elect};
