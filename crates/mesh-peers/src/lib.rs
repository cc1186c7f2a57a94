//! The peers of a node: a table that map messages change in place.
//!
//! A change costs what it changes, whatever the number of peers: a peer has a dense [`PeerIndex`] for as long as it
//! stays, and is found by id, stable id, node key, disco key, name or address. [`PeerTable::apply`] takes the part of a
//! message that is about peers and tells what came, went or changed; the rest of the message is not looked at. Nothing
//! here waits, reads a clock or knows of packets.
//!
//! Source: tailscale `control/controlclient/map.go`, for what a message means.

mod index;
mod intern;
mod peer;
mod routes;
mod table;

pub use peer::{Changed, Peer};
pub use table::{Event, PEERS_MAX, PeerIndex, PeerList, PeerTable};
