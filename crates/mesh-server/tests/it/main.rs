//! The server as those see it who talk to it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alarms;
mod api;
mod channel;
mod debug;
mod derp_nodes;
mod http;
mod machine;
mod public;
mod server;
