//! Reading a sender less often while what it sends is dropped.
//!
//! What is read of a flood to somebody who cannot take it is opened and copied for nothing. TCP carries the pause back
//! to the sender, which then drops for itself. But all flows of a client share one connection: so the pauses are short,
//! and they only grow while most is dropped.

use std::time::Duration;

/// First pause, and the shortest.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// Longest pause: less than anybody notices who talks to others meanwhile.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Bytes in one turn from which on a sender is one of those that cause a congestion.
const FLOOD_BYTES: u64 = 16 << 10;

/// What is known of one sender.
#[derive(Debug, Default)]
pub struct Congestion {
    pause: Duration,
}

impl Congestion {
    /// Says how long the sender is not to be read, now that `sent` bytes of it were read at once and `dropped` bytes had
    /// to go for them.
    ///
    /// The pause doubles while half is dropped or more, and halves while an eighth is dropped or less.
    pub fn pause(&mut self, sent: u64, dropped: u64) -> Duration {
        if sent >= FLOOD_BYTES && dropped >= sent / 2 {
            self.pause = (2 * self.pause).clamp(PAUSE_MIN, PAUSE_MAX);
        } else if dropped <= sent / 8 {
            self.pause /= 2;
            if self.pause < PAUSE_MIN {
                self.pause = Duration::ZERO;
            }
        }
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: u64 = 32 << 10;

    #[test]
    fn pauses_grow_to_their_bound_and_end_soon_after_the_congestion() {
        let mut congestion = Congestion::default();
        let pauses: Vec<_> = (0..7).map(|_| congestion.pause(TURN, TURN).as_millis()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 20, 20]);
        assert_eq!(congestion.pause(TURN, TURN / 4), PAUSE_MAX);
        let pauses: Vec<_> = (0..5).map(|_| congestion.pause(TURN, 0).as_micros()).collect();
        assert_eq!(pauses, [10_000, 5000, 2500, 1250, 0]);
    }

    #[test]
    fn who_sends_little_does_not_wait_because_of_others() {
        let mut congestion = Congestion::default();
        assert_eq!(congestion.pause(1400, 1400), Duration::ZERO);
        assert_eq!(congestion.pause(TURN, TURN / 3), Duration::ZERO);
    }
}
