//! The DERP relay and STUN on tokio.
//!
//! A [`Relay`] has two doors. It listens for TLS by itself ([`Relay::spawn_tls_listener`]), or another HTTP
//! server asks it for the answer to a request ([`Relay::answer`]) and hands over what was upgraded
//! ([`Relay::serve_upgraded`]). What frames mean, who is connected and who waits for what is decided in
//! `mesh-derp`; here are the sockets, the threads and the time.
//!
//! Each client has one task. It writes what waits in its own outbox, all in one write. Then it reads, looks up whom a packet
//! is for and puts it into that client's outbox, which forgets its oldest packets rather than grow. Those whom a listener
//! accepts stay on one of the relay's own threads, where whoever has sent least comes first.

mod admission;
mod certificate;
mod connection;
mod door;
mod drain;
mod limits;
mod link;
mod listener;
mod mesh;
pub mod metrics;
mod places;
mod refusal;
mod relay;
mod stats;
mod stun;
mod tls;
mod websocket;
mod wide;
mod workers;
mod writer;

pub use admission::{Admission, Candidate};
pub use certificate::{
    Certificate, CertificateError, LiveCertificate, generate_self_signed, meta_certificate,
};
pub use door::{Answer, Upgrade};
pub use limits::{CLIENT_BURST_MIN, CLIENT_RATE_MIN, Limits, PRE_LOGIN_MAX};
pub use listener::{ServiceHandle, set_socket_options};
pub use mesh::{
    MESH_WRITE_DEADLINE, MeshHandle, MeshKeyFileError, MeshPeer, ParseMeshPeerError,
    PeerCertificate, read_mesh_key,
};
pub use places::network;
pub use refusal::Refusal;
pub use relay::{LOGIN_DEADLINE, Relay};
pub use stats::{PacketCounters, RelayStats};
pub use writer::{KEEPALIVE_PERIOD, WRITE_DEADLINE};
