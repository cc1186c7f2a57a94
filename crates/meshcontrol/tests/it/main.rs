//! The program as people and scripts use it, against a server that answers what a test says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod connection;
mod derp;
mod derp_map;
mod errors;
mod fake;
mod help;
mod lists;
mod metrics;
mod policy;
mod requests;
mod serve;
