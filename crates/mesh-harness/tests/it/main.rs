//! The harness as a program, against a small control server that does as it should, or not.

#![expect(clippy::unwrap_used, reason = "these are tests, and all of them")]

mod judgement;
mod server;
