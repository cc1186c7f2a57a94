//! Disco: how two nodes find a way to each other. Messages and their sealing; bytes in, bytes out.
//!
//! A node pings a peer at every address that the peer may have. The ping that is answered has found a way, and
//! the answer tells from which address it seemed to come. Where a firewall stands in between, a call-me-maybe
//! by way of a relay asks the peer to ping from its side too. Each message travels sealed in a datagram of its
//! own, among the WireGuard packets of the same socket.
//!
//! When to ping, what an answer proves and which of the ways is best are left to `mesh-path`; nonces and
//! transactions come from the caller's randomness.
//!
//! Source: tailscale `disco/disco.go`.

mod channel;
mod message;

pub use channel::{
    Channel, DATAGRAM_BYTES_MAX, DiscoError, HEADER_BYTES, NONCE_BYTES, is_disco, sender,
};
pub use message::{ENDPOINTS_MAX, Message, TransactionId};
