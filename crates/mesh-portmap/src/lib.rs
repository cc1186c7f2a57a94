//! Port mapping: has a gateway lead a UDP port of its public address to the node, so that peers reach it from outside.
//!
//! A [`Mapper`] holds what is known of one gateway. It is told what the gateway answers and what time it is, and says what the
//! gateway is to be asked, and as which address the node is reached. It has no socket and no clock; finding the gateway is left
//! to the caller, and so is beginning anew at another.
//!
//! Two protocols, which share a port of the gateway: NAT-PMP (RFC 6886) and its successor PCP (RFC 6887). The third that
//! gateways speak, `UPnP`, is left out: it is HTTP and XML, of which `igd-next` 0.18 takes a megabyte from whoever answers, for
//! a parser that gives every element a copy of all namespaces, and 54 KB became 1.5 GiB there. `crab_nat` 0.8 speaks the other
//! two, for sixteen and sixty bytes of answers, but brings a dozen crates, takes the first datagram for the answer, and has
//! sockets and timers of its own.
//!
//! Source: tailscale `net/portmapper`, for what gateways do and for what lifetimes and patience are of use.

mod mapper;
mod message;

pub use mapper::{LIFETIME, Mapper, PAUSE_MAX, Services};
pub use message::{ANSWER_BYTES_MAX, GATEWAY_PORT, NONCE_BYTES};
