//! A node of a tailnet inside a program, without root and without a network interface of its own, unless it is given a
//! [`Device`].
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use mesh_node::Node;
//!
//! let node = Node::builder()
//!     .control_url("https://control.example.com")
//!     .auth_key("tskey-auth-...")
//!     .hostname("hello")
//!     .build()
//!     .await?;
//! node.up().await?;
//! let mut listener = node.listen(80)?;
//! let (stream, peer) = listener.accept().await?;
//! let who = node.who_is(peer.ip()).await?;
//! # drop((stream, who));
//! # Ok(())
//! # }
//! ```
//!
//! A [`Node`] is a handle; behind it are three tasks. One keeps up the session with the control server, one has the machine's
//! gateway lead a port to the node. The engine owns everything else: peers, tunnels, paths, the packet filter, relays and the UDP socket, so that nothing on the
//! way of a packet is locked but the TCP/IP stack, which programs share. What the engine decides is the core's: a machine
//! without sockets and clock, which simulations run by the thousand.

mod auth_key;
mod builder;
mod c2n;
mod control;
mod core;
mod device;
mod engine;
mod host;
#[cfg(feature = "loopback")]
pub mod loopback;
mod netcheck;
mod node;
mod pinger;
mod port_mapping;
#[cfg(feature = "axum")]
mod serve;
mod state;
mod stream;
mod stun_servers;
mod watch;

pub use auth_key::AuthKeyError;
pub use builder::{BuildError, Builder};
pub use core::{NetcheckReport, Pong};
pub use device::Device;
pub use mesh_portmap::Services as PortMappingServices;
pub use mesh_stack::{
    Network, PacketBatch, TcpListener, TcpStream, UdpListener, UdpSocket, UdpStream,
};
pub use node::{ListenError, Node, NodeError, PeerStatus, RELAY_WAIT, Status, WhoIs};
pub use pinger::PingKind;
#[cfg(feature = "axum")]
pub use serve::{AxumListener, Caller};
pub use state::{FileStore, MemoryStore, StateError, StateStore};
pub use stream::Stream;
pub use watch::{State, Watch, WatchEvent};
