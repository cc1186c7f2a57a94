//! Who may use a relay.

use std::net::IpAddr;

use futures_util::future::{BoxFuture, ready};
use mesh_keys::NodePublic;

/// A client that has proved its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Its key.
    pub key: NodePublic,
    /// The address it comes from, if that is known.
    pub source: Option<IpAddr>,
}

/// Says which nodes may use a relay, at every login in two stages, and never after: who is to be let go is cut by
/// [`Relay::disconnect`](crate::Relay::disconnect). Relays of the same mesh are not asked about.
pub trait Admission: Send + Sync + 'static {
    /// Whether the client may go on to [`Self::admits`]. It may take its time, within
    /// [`LOGIN_DEADLINE`](crate::LOGIN_DEADLINE), and ask another server.
    fn ask<'a>(&'a self, _candidate: &'a Candidate) -> BoxFuture<'a, bool> {
        Box::pin(ready(true))
    }

    /// Whether the node with this key may use the relay.
    ///
    /// It is asked while no other client can join or leave: it must answer at once and from memory, and not
    /// call the relay.
    fn admits(&self, key: &NodePublic) -> bool;
}

impl<F: Fn(&NodePublic) -> bool + Send + Sync + 'static> Admission for F {
    fn admits(&self, key: &NodePublic) -> bool {
        self(key)
    }
}
