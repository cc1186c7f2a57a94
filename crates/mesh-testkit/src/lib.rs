//! Fixtures for tests: a clock to turn, seeded keys, requests to vary, a database in memory.
//!
//! A dependency of tests and benches, never part of the program.

mod clock;
pub mod commands;
#[cfg(feature = "control-server")]
pub mod control_server;
mod database;
mod fixtures;
mod gateway;
pub mod large;
mod naive;
pub mod network;
pub mod random;
pub mod seeds;
#[cfg(feature = "tailnet")]
mod tailnet;

pub use clock::{TestClock, at};
pub use database::{MemoryDatabase, Rows, RowsError};
pub use fixtures::{
    auth_id, context, disco_key, machine_key, new_preauth_key, new_user, node_key, registration,
};
pub use gateway::{Gateway, Willing};
pub use naive::{Naive, elect};
#[cfg(feature = "tailnet")]
pub use tailnet::{Tailnet, example};
