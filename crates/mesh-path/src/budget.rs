//! How many pings may leave for one peer.

use std::time::{Duration, Instant};

/// Pings that may leave for one peer at once: one for each candidate, and some.
pub const PING_BURST: u32 = 64;

/// How long it takes until one more may leave.
///
/// A peer that calls with ever other endpoints makes this node ping whom it likes; this bounds how often. It is
/// above what a search through all candidates takes.
pub const PING_REFILL: Duration = Duration::from_millis(50);

/// A bucket of [`PING_BURST`] pings that fills by one every [`PING_REFILL`].
#[derive(Debug)]
pub(crate) struct Budget {
    /// When the bucket is full, or was.
    full_at: Instant,
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// When the next ping may leave, which can be in the past.
    ///
    /// `available_at() <= now` if and only if the bucket holds a ping at `now`.
    pub(crate) fn available_at(&self) -> Instant {
        let short = PING_REFILL * (PING_BURST - 1);
        self.full_at.checked_sub(short).unwrap_or(self.full_at)
    }

    /// Takes a ping out of the bucket, if there is one.
    pub(crate) fn spend(&mut self, now: Instant) -> bool {
        let is_available = self.available_at() <= now;
        if is_available {
            self.full_at = self.full_at.max(now) + PING_REFILL;
        }
        is_available
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn budget_is_a_bucket_that_fills(waits in prop::collection::vec(0_u64..400, 0..400)) {
            let mut now = Instant::now();
            let mut budget = Budget::new(now);
            let capacity = u64::from(PING_BURST) * 50;
            let mut filled = capacity;
            // Mostly haste, so that the bucket runs dry.
            for wait_ms in waits.into_iter().map(|wait| wait.saturating_sub(370)) {
                now += Duration::from_millis(wait_ms);
                filled = (filled + wait_ms).min(capacity);
                prop_assert_eq!(budget.available_at() <= now, filled >= 50);
                prop_assert_eq!(budget.spend(now), filled >= 50);
                filled -= if filled >= 50 { 50 } else { 0 };
            }
        }
    }
}
