//! WireGuard, as far as the core needs it: so that simulations can do without its clock and its secrets.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use mesh_keys::{NodePrivate, NodePublic};
use mesh_wireguard::{DatagramError, Output, Tunnels};

/// The tunnels of one node key.
pub(crate) trait WireGuard {
    /// Without tunnels yet.
    fn new(private: &NodePrivate) -> Self;
    /// Whether any tunnel is there that waits for ticks.
    fn is_active(&self) -> bool;
    /// Sends a packet to a peer.
    fn encapsulate(
        &mut self,
        peer: &NodePublic,
        packet: &[u8],
        now: Instant,
        emit: impl FnMut(Output<'_>),
    );
    /// Takes a datagram, and returns the peer that has proven to have sent it.
    fn decapsulate(
        &mut self,
        from: Option<IpAddr>,
        datagram: &[u8],
        now: Instant,
        is_peer: impl FnOnce(&NodePublic) -> bool,
        emit: impl FnMut(Output<'_>),
    ) -> Result<NodePublic, DatagramError>;
    /// Lets time pass.
    fn handle_tick(&mut self, now: Instant, emit: impl FnMut(Output<'_>));
    /// Has the next tick begin a handshake with a peer, if there is a tunnel: the peer may have lost its sessions.
    fn renew(&mut self, peer: &NodePublic);
    /// Forgets a peer.
    fn remove(&mut self, peer: &NodePublic);
    /// How long ago the last handshake with a peer was; `None` without a session.
    fn since_handshake(&self, peer: &NodePublic) -> Option<Duration>;
}

/// The real ones, which read the clock by themselves.
impl WireGuard for Tunnels {
    fn new(private: &NodePrivate) -> Self {
        Self::new(private)
    }

    fn is_active(&self) -> bool {
        self.is_active()
    }

    fn encapsulate(
        &mut self,
        peer: &NodePublic,
        packet: &[u8],
        _now: Instant,
        emit: impl FnMut(Output<'_>),
    ) {
        self.encapsulate(peer, packet, emit);
    }

    fn decapsulate(
        &mut self,
        from: Option<IpAddr>,
        datagram: &[u8],
        _now: Instant,
        is_peer: impl FnOnce(&NodePublic) -> bool,
        emit: impl FnMut(Output<'_>),
    ) -> Result<NodePublic, DatagramError> {
        self.decapsulate(from, datagram, is_peer, emit)
    }

    fn handle_tick(&mut self, _now: Instant, emit: impl FnMut(Output<'_>)) {
        self.handle_tick(emit);
    }

    fn renew(&mut self, peer: &NodePublic) {
        self.renew(peer);
    }

    fn remove(&mut self, peer: &NodePublic) {
        self.remove(peer);
    }

    fn since_handshake(&self, peer: &NodePublic) -> Option<Duration> {
        self.since_handshake(peer)
    }
}
