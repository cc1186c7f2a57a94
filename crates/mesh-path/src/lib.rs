//! Path choice: which way packets to a peer take, direct or through a relay.
//!
//! A [`PeerPath`] holds what one node knows of the ways to one peer. It is told what happens (data is about to
//! leave, disco messages came, the netmap changed, the own network changed) and says by which [`Route`] data
//! goes and which disco messages are to be sent. It reads no clock, draws no random bytes and knows no keys:
//! sealing, sockets, STUN and the own endpoints are left to the caller.
//!
//! Disco has no guard against replay, and needs none here: a ping or a call only ever adds candidates, and what
//! makes a path of one is a pong to a ping that waits.
//!
//! Source: tailscale `wgengine/magicsock/endpoint.go`, whose timers are kept; each rule that differs says why.

mod best;
mod budget;
mod candidates;
mod peer_path;
mod pings;
mod relays;
mod search;
mod way;

pub use best::{PING_TIMEOUT, TRUST};
pub use budget::{PING_BURST, PING_REFILL};
pub use candidates::{LEARNT_MAX, NETMAP_ENDPOINTS_MAX};
pub use peer_path::{HEARTBEAT_PERIOD, PONGS_MAX, PeerPath, SESSION_IDLE};
pub use search::{SEARCH_PERIOD, UPGRADE_PERIOD};
pub use way::{Disco, Route, Status, Transmit, Way};
