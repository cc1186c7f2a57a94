//! When the next message may leave: at once after a quiet time, in growing steps while changes keep coming.
//!
//! A kernel write costs more than sealing what it carries, so under load the number of messages is what counts.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest time between two messages of a stream.
const WINDOW_MIN: Duration = Duration::from_millis(25);

/// The longest time that a change is held back.
const WINDOW_MAX: Duration = Duration::from_millis(250);

/// The pace of one stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    window: Duration,
    last: Option<Instant>,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { window: WINDOW_MIN, last: None }
    }

    /// The earliest time for the next message.
    pub(crate) fn next_at(&self, now: Instant) -> Instant {
        self.last.map_or(now, |last| (last + self.window).max(now))
    }

    /// Takes note of a message sent at `now`: the window doubles while messages follow each other closely and
    /// shrinks to the least after a pause.
    pub(crate) fn sent(&mut self, now: Instant) {
        let is_close = self.last.is_some_and(|last| now - last < 2 * self.window);
        self.window = if is_close { (2 * self.window).min(WINDOW_MAX) } else { WINDOW_MIN };
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_message_leaves_at_once_and_windows_grow_to_their_limit() {
        let mut now = Instant::now();
        let mut pace = Pace::new();
        assert_eq!(pace.next_at(now), now);
        let mut gaps = Vec::new();
        for _ in 0..6 {
            pace.sent(now);
            let next = pace.next_at(now);
            gaps.push((next - now).as_millis());
            now = next;
        }
        assert_eq!(gaps, [25, 50, 100, 200, 250, 250]);
        now += Duration::from_secs(1);
        assert_eq!(pace.next_at(now), now);
        pace.sent(now);
        assert_eq!(pace.next_at(now) - now, WINDOW_MIN);
    }
}
