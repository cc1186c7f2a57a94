//! Bounds on what strangers can make us hold.

mod arrivals;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use mesh_relay::network;
use tokio::sync::watch;
use tokio::time::Instant;

use arrivals::Arrivals;

/// Over how many seconds those come back for whom there was no room.
const RETRY_SPREAD_SECONDS: u64 = 3;

/// Largest request bodies, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// `/machine/register`.
    pub register: usize,
    /// `/machine/map`.
    pub map: usize,
    /// The admin API.
    pub api: usize,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self { register: 64 << 10, map: 256 << 10, api: 1 << 20 }
    }
}

/// Counts connections that no node has claimed yet, in all and by source. Once a node is known to speak
/// through it, a connection counts no longer: an office of a thousand nodes behind one address is welcome.
#[derive(Debug, Clone)]
pub struct Slots(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    total_max: usize,
    per_source_max: usize,
    total: AtomicUsize,
    turned_away: AtomicU64,
    by_source: DashMap<IpAddr, usize>,
    arrivals: Arrivals,
}

/// A connection's place among the unclaimed; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    counts: Arc<Counts>,
    /// The connection that it came through, if that forwards for many, and is in the total instead.
    carrier: Option<Arc<Slot>>,
    source: Option<IpAddr>,
}

impl Slots {
    /// At most `total_max` unclaimed connections, and `per_source_max` from one source.
    pub fn new(total_max: usize, per_source_max: usize) -> Self {
        Self(Arc::new(Counts {
            total_max,
            per_source_max,
            total: AtomicUsize::new(0),
            turned_away: AtomicU64::new(0),
            by_source: DashMap::new(),
            arrivals: Arrivals::default(),
        }))
    }

    /// How many connections are unclaimed.
    pub fn taken(&self) -> usize {
        self.0.total.load(Ordering::Relaxed)
    }

    /// How many connections have found no place.
    pub fn turned_away(&self) -> u64 {
        self.0.turned_away.load(Ordering::Relaxed)
    }

    /// Takes a place for a connection from `source`; `None` if there is none, or if too many came from there lately.
    /// Proxies that forward for many and this machine itself (`source: None`) count in the total only.
    pub fn take(&self, source: Option<IpAddr>) -> Option<Slot> {
        let taken = self.try_take(source);
        if taken.is_none() {
            self.0.turned_away.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    fn try_take(&self, source: Option<IpAddr>) -> Option<Slot> {
        let counts = &self.0;
        if counts.total.fetch_add(1, Ordering::Relaxed) >= counts.total_max {
            counts.total.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        // From here on dropping the slot gives back what was taken.
        let mut slot = Slot { counts: counts.clone(), carrier: None, source: None };
        if let Some(source) = source {
            slot.source = Some(counts.take_of_source(source)?);
        }
        Some(slot)
    }

    /// The same for a request that a proxy's connection, the `carrier`, forwards for `source`. The carrier keeps its place
    /// in the total for as long.
    pub fn take_forwarded(&self, source: IpAddr, carrier: Option<Arc<Slot>>) -> Option<Slot> {
        let Some(source) = self.0.take_of_source(source) else {
            self.0.turned_away.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        Some(Slot { counts: self.0.clone(), carrier, source: Some(source) })
    }
}

impl Counts {
    fn take_of_source(&self, source: IpAddr) -> Option<IpAddr> {
        let source = network(source);
        if !self.arrivals.admit(source, Instant::now()) {
            return None;
        }
        let mut taken = self.by_source.entry(source).or_insert(0);
        let has_room = *taken < self.per_source_max;
        *taken += usize::from(has_room);
        has_room.then_some(source)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.carrier.is_none() {
            self.counts.total.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(source) = self.source {
            self.counts.by_source.remove_if_mut(&source, |_, taken| {
                *taken -= 1;
                *taken == 0
            });
        }
    }
}

/// In how many seconds somebody may come back for whom there was no room: soon, but not all at once.
pub(crate) fn retry_soon() -> u64 {
    // Without randomness all come back at once, and some of them once more.
    1 + getrandom::u64().unwrap_or_default() % RETRY_SPREAD_SECONDS
}

/// Ends when a connection's first request has not come within `patience`; never, once it came.
pub(crate) async fn silence(patience: Duration, mut requested: watch::Receiver<()>) {
    if tokio::time::timeout(patience, requested.changed()).await.is_ok() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(slots: &Slots, source: &str) -> Option<Slot> {
        slots.take(Some(source.parse().expect("an address")))
    }

    #[test]
    fn one_source_cannot_take_every_place() {
        let slots = Slots::new(3, 2);
        let held = [take(&slots, "192.0.2.1"), take(&slots, "192.0.2.1")];
        assert!(held.iter().all(Option::is_some));
        assert!(take(&slots, "192.0.2.1").is_none());
        let other = take(&slots, "192.0.2.2");
        assert!(other.is_some());
        assert!(slots.take(None).is_none(), "three are taken in all");
        assert_eq!((slots.taken(), slots.turned_away()), (3, 2));
        drop(held);
        assert!(take(&slots, "192.0.2.1").is_some());
        assert!(slots.take(None).is_some());
    }

    #[test]
    fn what_a_proxy_forwards_counts_by_its_source() {
        let slots = Slots::new(1, 2);
        let source = "192.0.2.1".parse().expect("an address");
        let proxy = Some(Arc::new(slots.take(None).expect("the only place in all")));
        let forward = |carrier: &Option<Arc<Slot>>| slots.take_forwarded(source, carrier.clone());
        let held = [forward(&proxy), forward(&proxy)];
        assert!(held.iter().all(Option::is_some));
        assert!(forward(&proxy).is_none());
        drop(held);
        let last = forward(&proxy).expect("there is room again");
        drop(proxy);
        assert!(slots.take(None).is_none(), "the proxy's place is kept");
        drop(last);
        assert!(slots.take(None).is_some());
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let slots = Slots::new(9, 1);
        let held = take(&slots, "2001:db8::1");
        assert!(held.is_some() && take(&slots, "2001:db8::2").is_none());
        assert!(take(&slots, "2001:db8:0:1::1").is_some());
    }
}
