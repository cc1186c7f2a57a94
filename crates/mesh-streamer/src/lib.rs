//! The map streamer: what open map streams are sent, and when.
//!
//! One task, the beat, turns the epochs of the node store into flushes. A stream is a cursor at a flush: it wakes with
//! the next one, asks `mesh-netmap` for the difference, and is polled for the next message only when the transport has
//! room, so that backpressure is coalescing and a slow reader costs nothing. A message is made of pieces, of which
//! those that all viewers of a class get alike are encoded and compressed once.

mod beat;
mod chunks;
mod encode;
mod flush;
mod group;
mod metrics;
mod progress;
mod rules;
mod stream;
mod streamer;
mod texts;
mod versions;
mod window;

pub use encode::{Compression, Message};
pub use metrics::Metrics;
pub use progress::StreamStatus;
pub use stream::MapStream;
pub use streamer::{Streamer, StreamerSettings};
