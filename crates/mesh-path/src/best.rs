//! The direct path in use: how long it is trusted, and when another is better.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How long a direct path carries data alone after its last pong: two heartbeats and some.
pub const TRUST: Duration = Duration::from_millis(6_500);

/// How long a pong is waited for.
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a path may go on carrying data alone once there is reason to doubt it, or two round trips if that
/// is longer, so that a path that holds shows it in time.
const DOUBT: Duration = Duration::from_secs(1);

/// The direct path in use.
#[derive(Debug)]
pub(crate) struct Best {
    pub(crate) addr: SocketAddr,
    /// Round trip of the last pong.
    pub(crate) latency: Duration,
    /// From when on data takes the relay too.
    trusted_until: Instant,
    /// When the first ping left that no pong came after.
    asked_at: Option<Instant>,
}

impl Best {
    /// A path that a pong has just come by.
    pub(crate) fn new(addr: SocketAddr, latency: Duration, now: Instant) -> Self {
        Self { addr, latency, trusted_until: now + TRUST, asked_at: None }
    }

    pub(crate) fn is_trusted(&self, now: Instant) -> bool {
        now < self.trusted_until
    }

    /// Whether data should not take this path any more: it is not trusted, and has not answered in time.
    ///
    /// A path that nobody asked since trust lapsed (for the session was idle) is not lost, but data takes the
    /// relay too.
    pub(crate) fn is_lost(&self, now: Instant) -> bool {
        !self.is_trusted(now) && self.asked_at.is_some_and(|at| now >= at + PING_TIMEOUT)
    }

    /// Notes that a ping leaves.
    pub(crate) fn note_ping(&mut self, now: Instant) {
        self.asked_at.get_or_insert(now);
    }

    /// Trusts the path no longer than [`DOUBT`] unless it answers.
    pub(crate) fn doubt(&mut self, now: Instant) {
        self.trusted_until = self.trusted_until.min(now + DOUBT.max(self.latency * 2));
    }

    /// Trusts the path no more unless it answers, and forgets that it was asked before.
    pub(crate) fn distrust(&mut self, now: Instant) {
        self.trusted_until = self.trusted_until.min(now);
        self.asked_at = None;
    }

    /// Whether a path that a pong has just come by should take this one's place.
    ///
    /// Each has a point for every percent of latency below the slower one's, and points for its kind of
    /// address. With the same points the path stays; one point alone is no reason to change, lest paths flap.
    ///
    /// Source: `betterAddr`.
    pub(crate) fn yields_to(&self, addr: SocketAddr, latency: Duration) -> bool {
        let slower = self.latency.max(latency);
        let faster_percent = |latency: Duration| {
            let percent = (latency.as_nanos() * 100).checked_div(slower.as_nanos());
            100 - percent.unwrap_or(100)
        };
        let ours = faster_percent(self.latency) + kind_points(self.addr.ip());
        let theirs = faster_percent(latency) + kind_points(addr.ip());
        theirs > ours.max(1)
    }
}

/// What a kind of address is worth: nearness, for then nobody pays for the bytes, and IPv6, for it is sturdier.
fn kind_points(ip: IpAddr) -> u128 {
    let (is_link_local, is_private, family) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.is_private(), 0),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.is_unique_local(), 10),
    };
    let nearness = if ip.is_loopback() {
        50
    } else if is_link_local {
        30
    } else if is_private {
        20
    } else {
        0
    };
    nearness + family
}

#[cfg(test)]
mod tests;
