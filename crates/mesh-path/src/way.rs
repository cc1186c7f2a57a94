//! The words in which a path is told of messages, and answers.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_disco::TransactionId;
use mesh_wire::DerpRegionId;

/// How a message comes from a peer, or goes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// As a datagram from or to this address of the peer. IPv4 stands as IPv4, never mapped into IPv6.
    Udp(SocketAddr),
    /// Through the relay of this region.
    Relay(DerpRegionId),
}

/// A disco message that is to be sent to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// Which way it goes.
    pub way: Way,
    /// The message.
    pub disco: Disco,
}

/// What a disco message says. The caller adds what only it knows, and seals it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disco {
    /// Asks the peer to answer. Goes by UDP only; the caller adds its node key.
    Ping {
        /// What the pong will bear.
        transaction: TransactionId,
    },
    /// Answers a ping, the way it came.
    Pong {
        /// That of the ping.
        transaction: TransactionId,
        /// Where the ping came from: of a relayed one 127.3.3.40 and the region as port, as Go has it.
        src: SocketAddr,
    },
    /// Asks the peer to ping this node at its endpoints, now that pings have opened the own firewall. Goes by
    /// relay only. The caller adds the endpoints, after asking STUN if what it knows is older than 27 s.
    CallMeMaybe,
}

/// Where data for the peer goes.
///
/// One way while a direct path is trusted, or none is known; both while a direct path has yet to show whether
/// it still holds; neither while nobody knows any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Route {
    /// The peer's address, if data goes there directly.
    pub udp: Option<SocketAddr>,
    /// The relay's region, if data goes through it.
    pub relay: Option<DerpRegionId>,
}

/// What there is to tell about a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// Where data goes.
    pub route: Route,
    /// Round trip of the last pong from `route.udp`.
    pub latency: Option<Duration>,
    /// Whether data was sent within [`SESSION_IDLE`](crate::SESSION_IDLE).
    pub is_active: bool,
}
