//! When the next flush may leave: soon after a quiet time, in growing steps while changes keep coming.
//!
//! A kernel write costs more than sealing what it carries, so the number of messages is what counts. That is a matter of
//! how many streams are open: few of them are told of each change by itself, whatever comes. Where much policy lies
//! between nodes, it is the making of messages that counts; that is measured.

use std::time::Duration;

use tokio::time::Instant;

/// How long a change waits for others after a quiet time: a node that comes tells its endpoints a moment later, and
/// its peers shall hear of it once.
const LEAD: Duration = Duration::from_millis(10);

/// The shortest time between two flushes.
const WINDOW_MIN: Duration = Duration::from_millis(25);

/// The longest time that a change is held back for the number of streams.
const WINDOW_MAX: Duration = Duration::from_millis(250);

/// The longest time that a change is held back because of what the last flush took.
const EFFORT_WINDOW_MAX: Duration = Duration::from_secs(1);

/// How far windows grow with the time that all streams together took to make what they were told last: on two cores
/// flushes then take a quarter of them.
const WINDOW_PER_EFFORT: u32 = 2;

/// How far windows grow for each open stream: some six times what a message to it costs.
const WINDOW_PER_STREAM: Duration = Duration::from_micros(125);

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

    /// Takes note of a flush at `now` of so many epochs to a number of streams, which had taken `effort` for what they were
    /// told before: the window doubles while it gathers changes, and shrinks while it only makes them wait.
    pub(crate) fn flushed(&mut self, now: Instant, epochs: u64, streams: usize, effort: Duration) {
        let is_close = self.last.is_some_and(|last| now - last < 2 * self.width);
        let streams = u32::try_from(streams).unwrap_or(u32::MAX);
        let for_writes = WINDOW_PER_STREAM.saturating_mul(streams).min(WINDOW_MAX);
        let for_effort = effort.saturating_mul(WINDOW_PER_EFFORT).min(EFFORT_WINDOW_MAX);
        let widest = for_writes.max(for_effort).max(WINDOW_MIN);
        self.width = match (is_close, epochs) {
            (false, _) => WINDOW_MIN,
            (true, 0..2) => (self.width / 2).max(WINDOW_MIN),
            (true, 2..) => (2 * self.width).min(widest),
        };
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long each of some flushes is apart from the next, in milliseconds, when changes keep coming.
    fn gaps(streams: usize, effort: Duration) -> [u128; 6] {
        let (mut now, mut window) = (Instant::now(), Window::new());
        std::array::from_fn(|_| {
            window.flushed(now, 2, streams, effort);
            let next = window.due(now, false);
            let gap = next - now;
            now = next;
            gap.as_millis()
        })
    }

    #[test]
    fn windows_grow_to_a_limit_that_the_number_of_streams_sets() {
        let effort = Duration::from_millis(1);
        assert_eq!(gaps(10_000, effort), [25, 50, 100, 200, 250, 250]);
        assert_eq!(gaps(1_000, effort), [25, 50, 100, 125, 125, 125]);
        assert_eq!(gaps(3, effort), [25; 6]);
    }

    #[test]
    fn windows_grow_to_twice_the_effort_of_a_flush() {
        assert_eq!(gaps(1_000, Duration::from_millis(90)), [25, 50, 100, 180, 180, 180]);
        assert_eq!(gaps(3, Duration::from_secs(9)), [25, 50, 100, 200, 400, 800]);
    }

    #[test]
    fn a_window_that_gathers_nothing_shrinks_again() {
        let (mut now, mut window) = (Instant::now(), Window::new());
        for _ in 0..5 {
            window.flushed(now, 2, 10_000, Duration::ZERO);
            now = window.due(now, false);
        }
        let gaps = [(); 5].map(|()| {
            window.flushed(now, 1, 10_000, Duration::ZERO);
            let gap = window.due(now, false) - now;
            now += gap;
            gap.as_millis()
        });
        assert_eq!(gaps, [125, 62, 31, 25, 25]);
    }

    #[test]
    fn first_flush_waits_for_what_belongs_to_it_unless_it_is_urgent() {
        let (now, mut window) = (Instant::now(), Window::new());
        assert_eq!((window.due(now, false), window.due(now, true)), (now + LEAD, now));
        window.flushed(now, 1, 3, Duration::ZERO);
        assert_eq!(window.due(now, true) - now, WINDOW_MIN);
        let later = now + WINDOW_MAX;
        assert_eq!(window.due(later, true), later);
    }
}
