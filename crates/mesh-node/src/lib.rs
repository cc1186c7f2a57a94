//! A node of a tailnet inside a program, without root and without a network interface of its own.
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
//! A [`Node`] is a handle; behind it are two tasks. One keeps up the session with the control server. The other, the
//! engine, owns everything else: peers, tunnels, paths, the packet filter, relays and the UDP socket, so that nothing on the
//! way of a packet is locked but the TCP/IP stack, which programs share.

mod builder;
mod control;
mod engine;
mod host;
mod netcheck;
mod node;
mod state;
mod stun_servers;

pub use builder::{BuildError, Builder};
pub use node::{ListenError, Node, NodeError, PeerStatus, RELAY_WAIT, Status, WhoIs};
pub use state::{FileStore, MemoryStore, StateError, StateStore};
