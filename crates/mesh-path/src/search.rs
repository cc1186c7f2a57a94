//! When a direct path is sought: rounds of pings to all candidates, and calls to the peer.

use std::time::{Duration, Instant};

/// How often all candidates are pinged at most, and the peer called, while no direct path is trusted.
pub const SEARCH_PERIOD: Duration = Duration::from_secs(5);

/// How often a better path is sought while one is trusted that is not good enough.
pub const UPGRADE_PERIOD: Duration = Duration::from_mins(1);

/// How long after a search has begun all candidates are pinged once more.
///
/// By then the peer has got the call, and its answer has opened its firewall: the first pings came too early, and
/// if this node's NAT is symmetric, the peer's own pings reach nobody. Go has them wait for the next search.
const SECOND_TRY: Duration = Duration::from_secs(1);

/// What was done to find a direct path, and what is to be done.
#[derive(Debug, Default)]
pub(crate) struct Search {
    /// When all candidates were last pinged, but for second tries.
    round_at: Option<Instant>,
    /// When the peer was last called.
    called_at: Option<Instant>,
    /// When a search that has just begun tries again.
    second_try_at: Option<Instant>,
    is_call_due: bool,
}

impl Search {
    /// Searches, as far as that was not done not long ago. Says whether all candidates are to be pinged.
    ///
    /// Calls have a period of their own, where Go calls only together with pings: a call is what makes a peer
    /// begin of whom no endpoint is known, and it opens the firewall of a peer that has just called itself.
    pub(crate) fn go_on(&mut self, now: Instant) -> bool {
        if is_due(self.called_at, SEARCH_PERIOD, now) {
            // A search that goes on has called not that long ago.
            let begins = is_due(self.called_at, SEARCH_PERIOD * 2, now);
            self.second_try_at = begins.then(|| now + SECOND_TRY);
            self.called_at = Some(now);
            self.is_call_due = true;
        }
        is_due(self.round_at, SEARCH_PERIOD, now)
    }

    /// Notes that all candidates are pinged.
    pub(crate) fn note_round(&mut self, now: Instant) {
        self.round_at = Some(now);
    }

    /// Whether it is time to look for a better path than a trusted one.
    pub(crate) fn is_upgrade_due(&self, now: Instant) -> bool {
        is_due(self.round_at, UPGRADE_PERIOD, now)
    }

    /// Begins anew, for what was found does not count any more.
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Takes the call that is to be sent.
    pub(crate) fn take_call(&mut self) -> bool {
        std::mem::take(&mut self.is_call_due)
    }

    /// When the second try is due.
    pub(crate) fn second_try_at(&self) -> Option<Instant> {
        self.second_try_at
    }

    /// Takes the second try, once it is due.
    pub(crate) fn take_second_try(&mut self, now: Instant) -> bool {
        self.second_try_at.take_if(|at| *at <= now).is_some()
    }
}

/// Whether a span has gone by since something was last done.
fn is_due(at: Option<Instant>, period: Duration, now: Instant) -> bool {
    at.is_none_or(|at| now.saturating_duration_since(at) >= period)
}
