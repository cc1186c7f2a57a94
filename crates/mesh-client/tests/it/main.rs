//! The client against a server made of the same Noise stream and hyper, on loopback TCP.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test")]

mod dial;
mod fake_server;
mod map_stream;
mod requests;
