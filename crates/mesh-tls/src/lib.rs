//! TLS 1.3 without input or output, for who moves many bytes: a relay, and what measures it.
//!
//! rustls makes the handshake ([`Handshake`]) and keeps the secrets. What comes after it is sealed and opened where
//! the bytes are ([`Records`]): no copy, no buffer of its own, nothing held for a connection that rests.
//!
//! Source: RFC 8446; rustls, module `kernel`.

mod direction;
mod handshake;
mod records;

pub use handshake::{Handshake, HandshakeError, Side};
pub use records::{RECORD_BYTES_MAX, RecordError, Records};
