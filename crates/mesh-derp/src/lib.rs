//! DERP without input or output: frames, login, what a relay decides about each client, and STUN.
//!
//! DERP relays packets between nodes that cannot reach each other directly. A relay knows its clients by
//! their node keys and never sees inside a packet. Everything here takes bytes and gives bytes or values;
//! sockets, TLS, HTTP and time are left to `mesh-relay`. The client's side of frames and login is here too,
//! for nodes and tests.
//!
//! Source: tailscale `derp/derp.go`, DERP protocol version 2.

mod client;
mod client_state;
mod congestion;
mod counts;
mod deliveries;
mod fair_queue;
mod frame;
mod frame_buffer;
mod login;
mod mesh_link;
mod nacl;
mod outbox;
mod packet;
mod packet_queue;
mod peer_present;
mod routes;
mod session;
pub mod stun;
mod table;
mod token_bucket;
pub mod websocket;

pub use client::Client;
pub use client_state::{Action, ClientState, CloseReason};
pub use congestion::Congestion;
pub use counts::{Counts, DropReason};
pub use frame::{
    ClientFrame, FrameError, FrameReader, HEADER_BYTES, PING_BYTES, PeerGoneReason, ServerFrame,
};
pub use frame_buffer::FrameBuffer;
pub use login::{ClientInfo, ClientLogin, Login, LoginError, ServerInfo, ServerLogin};
pub use mesh_link::{MeshLink, MeshLinkError};
pub use nacl::NONCE_BYTES;
pub use outbox::{AROUND_PACKET_BYTES, Batch, QUEUE_BYTES_MAX, QUEUE_PACKETS_MAX};
pub use packet::{KINDS, PACKET_BYTES_MAX, PacketKind, Tally};
pub use packet_queue::recycle;
pub use peer_present::PeerPresent;
pub use session::{Session, SessionError};
pub use table::Table;
pub use token_bucket::{Rate, TokenBucket};

/// The version of the protocol that is spoken here, and the only one that clients still speak.
pub const PROTOCOL_VERSION: u32 = 2;
