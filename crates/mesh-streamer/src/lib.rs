//! The map streamer: what open map streams are sent, and when.
//!
//! A stream is a cursor into the node store's epoch log. It wakes, asks `mesh-netmap` for the difference
//! between its cursor and the newest epoch, and is polled for the next message only when the transport has
//! room, so that backpressure is coalescing and a slow reader costs nothing. What all viewers of a class are
//! told alike is encoded and compressed once.

mod encode;
mod frames;
mod pace;
mod stream;

pub use encode::{Compression, frame};
pub use stream::{MapStream, Streamer, StreamerSettings};
