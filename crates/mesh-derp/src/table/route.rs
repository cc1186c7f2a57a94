//! The way that packets for a key take.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mesh_keys::NodePublic;

use crate::client::Client;
use crate::packet::{PacketKind, Tally};

/// The way to a key, for as long as it is the best one.
#[derive(Debug)]
pub(crate) struct Route {
    /// The client's connection, or ours to the relay that has the client.
    client: Arc<Client>,
    leads_away: bool,
    is_stale: AtomicBool,
}

impl Route {
    /// The way to a client of this relay.
    pub(crate) fn here(client: &Arc<Client>) -> Self {
        Self { client: Arc::clone(client), leads_away: false, is_stale: AtomicBool::new(false) }
    }

    /// The way to a client of another relay, by our connection to that one.
    pub(crate) fn away(relay: &Arc<Client>) -> Self {
        Self { client: Arc::clone(relay), leads_away: true, is_stale: AtomicBool::new(false) }
    }

    /// Whether it leads to another relay.
    pub(crate) fn leads_away(&self) -> bool {
        self.leads_away
    }

    /// Whether another way has taken its place, or none. Who remembers a route looks here before each use.
    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Acquire)
    }

    /// Whether it need not be remembered even to tell its client that a peer is gone.
    pub(crate) fn is_over(&self) -> bool {
        self.client.has_left() || self.leads_away && self.is_stale()
    }

    /// Tells all who remember a route that it leads nowhere any more.
    pub(crate) fn retire(route: Option<&Arc<Self>>) {
        if let Some(route) = route {
            route.is_stale.store(true, Ordering::Release);
        }
    }

    /// Queues a packet. Returns those that had to go for it; `None` if the connection has left.
    ///
    /// Whoever `is_present`, here or at another relay, as far as the table knows, is not gone or is back: a notice that
    /// waits is forgotten. A packet of somebody else has come late, and the notice goes behind it.
    pub(crate) fn push(
        &self,
        kind: PacketKind,
        src: NodePublic,
        dst: NodePublic,
        payload: &[u8],
        is_present: bool,
    ) -> Option<Tally> {
        self.client.push(|outbox| {
            if self.leads_away {
                return outbox.push_forward(kind, src, dst, payload);
            }
            let dropped = outbox.push_packet(kind, src, payload);
            if is_present {
                outbox.forget_gone(&src);
            } else {
                outbox.postpone_gone(&src);
            }
            dropped
        })
    }

    /// Whether it is the way by this connection.
    #[cfg(test)]
    pub(crate) fn is_by(&self, client: &Arc<Client>) -> bool {
        Arc::ptr_eq(&self.client, client)
    }
}
