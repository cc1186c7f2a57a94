//! Connections that peers open: who may, and how they come to a listener.

use smoltcp::time::{Duration, Instant};

use super::Inner;
use crate::connection::{Connection, Phase};
use crate::connections::ConnectionId;
use crate::listen::{ACCEPT_TIMEOUT, BACKLOG_MAX, ListenKey, Network};
use crate::packet::Segment;
use crate::tcp::Tcp;

/// Most connections at a time, those included that peers opened, that programs opened, and that still deliver
/// what was written. With more, SYNs are ignored and connecting fails.
pub(super) const CONNECTIONS_MAX: usize = 4096;

/// Most handshakes under way; with more, SYNs are ignored, and honest peers send theirs again.
const HALF_OPEN_MAX: usize = 256;

/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

impl Inner {
    /// Who wants the connection that a segment opens, if it opens one.
    pub(super) fn listener_for(&self, segment: &Segment<'_>) -> Option<ListenKey> {
        if !segment.opens() {
            return None;
        }
        let (local, remote) = (segment.flow.local, segment.flow.remote);
        let networks = if local.is_ipv4() {
            [Network::Tcp4, Network::Tcp]
        } else {
            [Network::Tcp6, Network::Tcp]
        };
        let listener = self.listeners.find(networks, local, self.is_own(local.ip()));
        listener.or_else(|| self.fallbacks.find(remote, local))
    }

    /// Makes the connection that a segment opens, if there is room.
    pub(super) fn admit(
        &mut self,
        key: ListenKey,
        segment: &Segment<'_>,
        now: Instant,
    ) -> Option<ConnectionId> {
        if !self.has_room_for(key) {
            return None;
        }
        let seed = self.first_sequence(&segment.flow, now);
        let tcp = Tcp::accept(segment.flow, &segment.tcp, seed, self.mtu, now);
        let id = self.connections.insert(Connection::new(tcp, segment.flow, Phase::Orphaned));
        self.set_phase(id, Phase::Arriving(key));
        if let Some(connection) = self.connections.get_mut(id) {
            connection.deadline = Some(now + HANDSHAKE_TIMEOUT);
        }
        Some(id)
    }

    fn has_room_for(&self, key: ListenKey) -> bool {
        self.connections.len() < CONNECTIONS_MAX
            && self.half_open < HALF_OPEN_MAX
            && self.listeners.backlog(key) < BACKLOG_MAX
    }

    /// Gives a connection whose handshake is done to its listener.
    pub(super) fn hand_over(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if let Phase::Arriving(key) = connection.phase
            && connection.tcp.is_established()
        {
            connection.deadline = Some(now + ACCEPT_TIMEOUT);
            self.set_phase(id, Phase::Waiting(key));
        }
    }
}
