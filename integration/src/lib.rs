//! Real Tailscale clients against the real server.
//!
//! This library is what the scenarios in `tests/it` stand on. A [`Lab`] is the scratch world of one
//! scenario; in it a [`Server`] is the built binary with its own command line, and a [`Node`] is a stock
//! client in a driver process (`../README.md` describes the drivers and how to write a scenario). All that
//! waits goes through [`eventually`], which has a deadline and tells what it saw last.

mod authority;
mod connection;
mod crowd;
mod database;
mod datagram;
mod disk;
mod driver;
mod environment;
mod eventually;
mod gate;
mod lab;
mod log;
mod node;
mod outage;
mod ports;
mod relay;
mod server;
mod stalled;
mod status;
mod usage;
mod visitor;

pub use crate::connection::Connection;
pub use crate::crowd::Crowd;
pub use crate::database::Engine;
pub use crate::datagram::Flow;
pub use crate::disk::SmallDisk;
pub use crate::environment::nodes;
pub use crate::eventually::eventually;
pub use crate::lab::{Company, Lab, run, run_within};
pub use crate::log::LogLine;
pub use crate::node::{Client, Kind, Node, Taken, Transfer, Up, Whois};
pub use crate::outage::Outage;
pub use crate::relay::{Maker, Relay, write_derp_map};
pub use crate::server::{NodeRecord, RefusedStart, Server, Setup};
pub use crate::stalled::Stalled;
pub use crate::status::{Peer, Status};
pub use crate::usage::Usage;
pub use crate::visitor::{AtRelay, Visitor};
