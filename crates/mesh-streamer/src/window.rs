//! When the next flush may leave: soon after a quiet time, in growing steps while changes keep coming.
//!
//! A kernel write costs more than sealing what it carries, so the number of messages is what counts.

use std::time::Duration;

use tokio::time::Instant;

/// How long a change waits for others after a quiet time: a node that comes tells its endpoints a moment later, and
/// its peers shall hear of it once.
const LEAD: Duration = Duration::from_millis(10);

/// The shortest time between two flushes.
const WINDOW_MIN: Duration = Duration::from_millis(25);

/// The longest time that a change is held back.
const WINDOW_MAX: Duration = Duration::from_millis(250);

/// The pace of flushes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    width: Duration,
    last: Option<Instant>,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self { width: WINDOW_MIN, last: None }
    }

    /// When a change that came at `changed_at` is to be flushed; one that is urgent waits for no others.
    pub(crate) fn due(&self, changed_at: Instant, is_urgent: bool) -> Instant {
        let lead = if is_urgent { Duration::ZERO } else { LEAD };
        let earliest = self.last.map_or(changed_at, |last| last + self.width);
        earliest.max(changed_at + lead)
    }

    /// Takes note of a flush at `now`: the window doubles while flushes follow each other closely and shrinks to the
    /// least after a pause.
    pub(crate) fn flushed(&mut self, now: Instant) {
        let is_close = self.last.is_some_and(|last| now - last < 2 * self.width);
        self.width = if is_close { (2 * self.width).min(WINDOW_MAX) } else { WINDOW_MIN };
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_flush_waits_for_what_belongs_to_it_and_windows_grow_to_their_limit() {
        let mut now = Instant::now();
        let mut window = Window::new();
        assert_eq!(window.due(now, false) - now, LEAD);
        let mut gaps = Vec::new();
        for _ in 0..6 {
            window.flushed(now);
            let next = window.due(now, false);
            gaps.push((next - now).as_millis());
            now = next;
        }
        assert_eq!(gaps, [25, 50, 100, 200, 250, 250]);
        now += Duration::from_secs(1);
        assert_eq!(window.due(now, true), now);
        window.flushed(now);
        assert_eq!(window.due(now, true) - now, WINDOW_MIN);
    }
}
