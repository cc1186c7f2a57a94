//! WireGuard towards all peers of a node: a tunnel for each that is talked to, and which tunnel a datagram is for.
//!
//! Bytes in, bytes out: where datagrams come from and go to, and which packets a peer may send, is for others to know.
//! A peer costs nothing before the first packet from or to it, and nothing again some minutes after the last.
//!
//! The protocol itself is boringtun's, which reads the clock by itself; hence no `now` here. It waits to be told that
//! time passes: [`Tunnels::handle_tick`] must be called every [`TICK`] while [`Tunnels::is_active`]. It logs by
//! itself, too, under the target `boringtun`, where a peer that is switched off is WARN and ERROR: who wants quiet logs
//! turns that target off.

mod tunnels;

pub use tunnels::{DatagramError, Output, PACKET_BYTES_MAX, TICK, Tunnels};
