//! Keys that expire without a word of the control server, by its clock.
//!
//! A node whose clock is wrong by more than [`SKEW_MIN`] goes by what the server says of the time. Peers alone are judged here: a
//! node whose own key has expired logs in anew, and until then its peers refuse what it sends.
//!
//! Source: tailscale `ipn/ipnlocal/expiry.go`, `expiryManager`.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use mesh_peers::{Peer, PeerIndex};
use mesh_wire::{MapResponse, Node};

use super::Core;
use super::tunnel::WireGuard;

/// A clock that is wrong by less is not corrected: messages take a while.
const SKEW_MIN: SignedDuration = SignedDuration::from_mins(1);

/// A time before this one is wrong, and nothing expires by it: 2023-01-10, as with stock clients.
const EARLIEST: Timestamp = Timestamp::constant(1_673_373_066, 0);

/// The shortest time from one review of all peers to the next: keys that expire one after another are as late.
const REVIEW_PERIOD_MIN: Duration = Duration::from_secs(1);

/// Whose key has expired, and when the next one does.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    /// The control server's time, and when it was that; `None` before the server has said anything.
    clock: Option<(Timestamp, Instant)>,
    /// How far the control server's clock is ahead of the machine's.
    ahead: SignedDuration,
    /// Whom the clock has called expired, and not the control server.
    called: HashSet<PeerIndex>,
    /// When all peers are to be reviewed, by the control server's time; not after the next key expires.
    due_at: Option<Timestamp>,
    reviewed_at: Option<Instant>,
}

impl Expiry {
    /// When [`Core::review_expiry`] is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let (time, at) = self.clock?;
        let left = Duration::try_from(self.due_at?.duration_since(time)).unwrap_or_default();
        let due_at = at.checked_add(left)?;
        Some(self.reviewed_at.map_or(due_at, |last| due_at.max(last + REVIEW_PERIOD_MIN)))
    }

    /// Forgets what the clock has said of a peer.
    pub(super) fn forget(&mut self, index: PeerIndex) {
        self.called.remove(&index);
    }

    /// Sets the clock, by what the control server says of the time if it does.
    fn set_clock(&mut self, wall_clock: Timestamp, told: Option<Timestamp>, now: Instant) {
        if let Some(told) = told {
            let ahead = told.duration_since(wall_clock);
            self.ahead = if ahead.abs() > SKEW_MIN { ahead } else { SignedDuration::ZERO };
        }
        let (before, time) = (self.time(now), wall_clock.checked_add(self.ahead));
        let time = time.unwrap_or(wall_clock);
        self.clock = Some((time, now));
        // Peers that are told in parts come before what the server says of the time.
        if before.is_none_or(|before| time.duration_since(before).abs() > SKEW_MIN) {
            self.due_at = Some(time);
        }
    }

    /// What the time is for the control server.
    fn time(&self, now: Instant) -> Option<Timestamp> {
        let (time, at) = self.clock?;
        time.checked_add(now.saturating_duration_since(at)).ok()
    }

    /// Whether a peer is to be called expired, or not any more; `None` if it may stay as it is.
    fn judge(&mut self, index: PeerIndex, peer: &Peer, now: Instant) -> Option<bool> {
        if !peer.expired {
            self.called.remove(&index);
        }
        let time = self.time(now).filter(|time| *time >= EARLIEST)?;
        let has_expired = peer.key_expiry.is_some_and(|expires_at| expires_at <= time);
        if let Some(expires_at) = peer.key_expiry.filter(|_| !has_expired) {
            self.due_at = Some(self.due_at.map_or(expires_at, |due_at| due_at.min(expires_at)));
        }
        if has_expired && !peer.expired {
            self.called.insert(index);
            Some(true)
        } else if !has_expired && self.called.remove(&index) {
            Some(false)
        } else {
            None
        }
    }
}

impl<T: WireGuard> Core<T> {
    /// Takes what a message says of the time, which messages do that say nothing else, too.
    pub(super) fn note_time(&mut self, message: &MapResponse, wall_clock: Timestamp, now: Instant) {
        self.expiry.set_clock(wall_clock, message.control_time, now);
    }

    /// Takes note of whom the control server itself calls expired: what the clock says of them does not count any more.
    pub(super) fn note_expired<'n>(&mut self, told: impl IntoIterator<Item = &'n Node>) {
        for node in told.into_iter().filter(|node| node.expired) {
            if let Some(index) = self.peers.by_id(node.id) {
                self.expiry.forget(index);
            }
        }
    }

    /// Calls those peers expired whose keys are by now.
    pub(super) fn review_expiry(&mut self, now: Instant) {
        (self.expiry.due_at, self.expiry.reviewed_at) = (None, Some(now));
        for index in self.peers.iter().map(|(index, _)| index).collect::<Vec<_>>() {
            self.judge_expiry(index, now);
        }
    }

    /// Calls a peer expired whose key is, or takes that back, as if the control server had said so.
    pub(super) fn judge_expiry(&mut self, index: PeerIndex, now: Instant) {
        let Some(peer) = self.peers.get(index) else { return };
        let Some(expired) = self.expiry.judge(index, peer, now) else { return };
        let node = Node { expired, ..peer.to_node() };
        let mut message = MapResponse { peers_changed: vec![node], ..MapResponse::default() };
        let mut events = Vec::new();
        // Of a changed peer it does not matter when it was seen.
        self.peers.apply(&mut message, Timestamp::UNIX_EPOCH, &mut events);
        for event in events {
            self.handle_peer_event(event, now);
        }
    }
}

#[cfg(test)]
mod tests;
