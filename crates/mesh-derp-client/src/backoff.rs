//! How long to wait between two attempts to connect.

use std::time::Duration;

/// Mean wait after the first failure.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Longest mean wait: as with stock clients, for a node without its home region can hardly be reached.
///
/// Source: tailscale `wgengine/magicsock/derp.go`, `runDerpReader`.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(5);

/// Doubles the wait from one failure to the next.
#[derive(Debug)]
pub(crate) struct Backoff {
    mean: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { mean: FIRST_WAIT }
    }

    /// How long to wait after one more failure: half to one and a half times the mean, by `random`, so that
    /// the clients of a relay that was down do not come back all at once.
    pub(crate) fn next_wait(&mut self, random: u32) -> Duration {
        let mean = self.mean;
        self.mean = (2 * mean).min(WAIT_MAX);
        mean / 2 + mean * (random % 1000) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..8).map(|_| backoff.next_wait(500).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn jitter_stays_around_the_mean() {
        for random in [0, 1, 499, 999, 1000, u32::MAX] {
            let wait = Backoff::new().next_wait(random);
            assert!((FIRST_WAIT / 2..FIRST_WAIT * 3 / 2).contains(&wait), "{random}: {wait:?}");
        }
    }
}
