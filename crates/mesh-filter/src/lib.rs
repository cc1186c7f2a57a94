//! The packet filter that a node enforces on what peers send it, with flow state.
//!
//! The control server tells every node which sources may reach which of its ports, and the receiver enforces
//! it; what a node sends is free. [`Filter`] holds the rules by chunk, as the map stream delivers them, [`Flows`]
//! remembers what the node sent, so that answers come back in, and [`Packet`] is the little of a packet that both
//! look at. Where a peer knows the node by another address, [`replace_source`] and [`replace_destination`] put it into
//! packets before the one and after the other has seen them. All of it takes bytes, values and `now`, and gives values. Who has which node capability, whether a
//! source belongs to the peer that sends from it, and counting what is dropped are left to the caller.
//!
//! Source: tailscale `wgengine/filter`, `net/packet`, `net/flowtrack`.

mod address;
mod filter;
mod flows;
mod masquerade;
mod packet;
mod recent;
mod rule;

pub use filter::{Filter, Reason, Verdict};
pub use flows::{FLOW_IDLE, FLOWS_MAX, Flows};
pub use masquerade::{replace_destination, replace_source};
pub use packet::{Icmp, Packet, PacketError, Transport};
pub use rule::{BAD_ENTRIES_MAX, BadEntry, EntryError};
