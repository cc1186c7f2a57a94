//! The Noise channel as an async stream, for both ends: [`NoiseStream`] is what HTTP/2 runs over.
//!
//! The records themselves are `mesh-noise`'s; the handshake is the caller's, as is who dials whom.

pub mod http2;
mod stream;

pub use stream::NoiseStream;
