//! DERP client on tokio: one connection to a region, kept up.
//!
//! A [`RegionClient`] dials the relays of a region in their order, logs in, and comes back whenever the
//! connection ends, for as long as somebody holds it. What is to be sent waits in a bounded queue that
//! forgets its oldest packets; what is received goes to a channel, whose bound holds the relay back. Frames
//! and login are `mesh-derp`'s. Which region is home, when a region is needed and what a packet means is left
//! to the node.
//!
//! One task serves a region, whatever happens. A relay that tells a rate gets no more than that. HTTP proxies,
//! `WebSocket` and the start without an HTTP answer (fast start) are left out.
//!
//! Source: tailscale `derp/derphttp/derphttp_client.go`, `derp/derp_client.go`.

mod backoff;
mod connect;
mod connection;
mod keeper;
#[cfg(test)]
mod numbers;
mod outbox;
mod region_client;

pub use connect::{
    CONNECT_TIMEOUT, ConnectError, DIAL_TIMEOUT, MeshConnection, MeshLogin, tls_config,
};
pub use connection::{DisconnectCause, SILENCE_MAX, WRITE_TIMEOUT};
pub use outbox::{QUEUE_BYTES_MAX, QUEUE_PACKETS_MAX, Status};
pub use region_client::{Event, Options, RegionClient};
