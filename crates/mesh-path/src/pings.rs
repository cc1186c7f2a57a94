//! The pings that wait for their pongs, and how many may leave.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh_disco::TransactionId;

use crate::best::PING_TIMEOUT;
use crate::budget::Budget;

/// The pings to one peer.
///
/// At most [`PING_BURST`](crate::PING_BURST) wait, and those that [`PING_REFILL`](crate::PING_REFILL) allows within
/// [`PING_TIMEOUT`].
#[derive(Debug)]
pub(crate) struct Pings {
    budget: Budget,
    /// None was older than [`PING_TIMEOUT`] when the last one left.
    waiting: Vec<SentPing>,
}

/// A ping that waits for its pong.
#[derive(Debug)]
struct SentPing {
    transaction: TransactionId,
    to: SocketAddr,
    at: Instant,
}

impl Pings {
    pub(crate) fn new(now: Instant) -> Self {
        Self { budget: Budget::new(now), waiting: Vec::new() }
    }

    /// When the next ping may leave, which can be in the past.
    pub(crate) fn available_at(&self) -> Instant {
        self.budget.available_at()
    }

    /// Takes leave for one ping, if there is any.
    pub(crate) fn take_leave(&mut self, now: Instant) -> bool {
        self.budget.spend(now)
    }

    /// Notes a ping that leaves.
    pub(crate) fn note(&mut self, transaction: TransactionId, to: SocketAddr, now: Instant) {
        self.waiting.retain(|ping| !ping.is_late(now));
        self.waiting.push(SentPing { transaction, to, at: now });
    }

    /// Takes the ping that a pong answers: where it went, and how long ago.
    pub(crate) fn take(
        &mut self,
        transaction: TransactionId,
        now: Instant,
    ) -> Option<(SocketAddr, Duration)> {
        let is_asked = |ping: &SentPing| ping.transaction == transaction && !ping.is_late(now);
        let index = self.waiting.iter().position(is_asked)?;
        let ping = self.waiting.swap_remove(index);
        Some((ping.to, now.saturating_duration_since(ping.at)))
    }

    /// Waits no more for answers from one address.
    pub(crate) fn forget(&mut self, to: SocketAddr) {
        self.waiting.retain(|ping| ping.to != to);
    }

    /// Waits for no answer any more, and gives back the memory.
    pub(crate) fn clear(&mut self) {
        self.waiting = Vec::new();
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

impl SentPing {
    /// Whether it is too late for an answer.
    fn is_late(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) > PING_TIMEOUT
    }
}
