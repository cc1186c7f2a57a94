//! A relay, its clients, and a server that says whatever a test has it say.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod follow;
mod server;
mod verify_url;
mod world;
