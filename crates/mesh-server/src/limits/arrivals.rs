//! How fast connections come from one source.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How many connections a source may open in a [`WINDOW`], all at once or spread: twenty a second.
const CONNECTIONS_MAX: u32 = 100;

/// After this long all is forgotten.
const WINDOW: Duration = Duration::from_secs(5);

/// How many sources are told apart in a [`WINDOW`]. More are not counted: the total of unclaimed connections bounds what a
/// flood from everywhere can do.
const SOURCES_MAX: usize = 16_384;

/// Counts connections by source.
#[derive(Debug, Default)]
pub(super) struct Arrivals(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    ends_at: Option<Instant>,
    connections: HashMap<IpAddr, u32>,
}

impl Arrivals {
    /// Whether one more connection of this source is within its rate.
    pub(super) fn admit(&self, source: IpAddr, now: Instant) -> bool {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if window.ends_at.is_none_or(|ends_at| ends_at <= now) {
            *window = Window { ends_at: Some(now + WINDOW), connections: HashMap::new() };
        }
        let is_known = window.connections.contains_key(&source);
        if !is_known && window.connections.len() >= SOURCES_MAX {
            return true;
        }
        let connections = window.connections.entry(source).or_default();
        *connections = connections.saturating_add(1);
        *connections <= CONNECTIONS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + last).into())
    }

    /// How many of a thousand connections are admitted.
    fn admitted(arrivals: &Arrivals, now: Instant) -> u32 {
        (0..1000).map(|_| u32::from(arrivals.admit(address(1), now))).sum()
    }

    #[test]
    fn a_source_may_burst_and_then_has_to_wait() {
        let (arrivals, start) = (Arrivals::default(), Instant::now());
        assert_eq!(admitted(&arrivals, start), CONNECTIONS_MAX);
        assert_eq!(admitted(&arrivals, start + Duration::from_secs(1)), 0);
        assert!(arrivals.admit(address(2), start), "others are not held up");
        assert_eq!(admitted(&arrivals, start + WINDOW), CONNECTIONS_MAX);
    }

    #[test]
    fn a_flood_from_everywhere_is_not_remembered() {
        let (arrivals, start) = (Arrivals::default(), Instant::now());
        for last in 0..100_000 {
            assert!(arrivals.admit(address(last), start));
        }
        let connections = || arrivals.0.lock().map_or(0, |window| window.connections.len());
        assert_eq!(connections(), SOURCES_MAX);
        assert!(arrivals.admit(address(999_999), start + WINDOW));
        assert_eq!(connections(), 1);
    }
}
