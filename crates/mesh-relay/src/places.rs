//! Places of connections that have not logged in: newcomers always get one, if need be somebody else's.
//!
//! When all are taken, the source that has most of them loses its oldest. So a flood from one address, or a few, shows
//! only itself the door, and from many addresses it lasts for nobody: who logs in at once has done so long before it
//! is the oldest. Behind a proxy all have one source, and the oldest of all goes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The places of one relay, over all doors.
#[derive(Debug, Default)]
pub(crate) struct Places(Arc<Mutex<Taken>>);

impl Places {
    /// Takes a place for a connection from `remote`, and somebody else's if there are `max`.
    pub(crate) fn enter(&self, remote: Option<SocketAddr>, max: usize) -> Place {
        let mut taken = lock(&self.0);
        let too_many = taken.len.saturating_sub(max.saturating_sub(1));
        taken.displace(too_many);
        let source = remote.map(|remote| network(remote.ip()));
        let lost = Arc::new(Notify::new());
        let number = taken.add(source, Arc::clone(&lost));
        Place { taken: Arc::clone(&self.0), remote, source, number, lost }
    }

    /// Takes places away from so many connections, if there are.
    pub(crate) fn displace(&self, connections: usize) {
        lock(&self.0).displace(connections);
    }

    /// How many are taken.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        lock(&self.0).len
    }
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    taken: Arc<Mutex<Taken>>,
    remote: Option<SocketAddr>,
    source: Source,
    number: u64,
    lost: Arc<Notify>,
}

impl Place {
    /// Where the connection comes from, if that is known.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        self.remote
    }

    /// Waits until somebody else has got the place. It is told once.
    pub(crate) async fn lost(&self) {
        self.lost.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.taken).remove(self.source, self.number);
    }
}

/// Where connections come from that are counted as one.
type Source = Option<IpAddr>;

#[derive(Debug, Default)]
struct Taken {
    /// How many places.
    len: usize,
    /// The number of the next one.
    next: u64,
    /// Those of each source by number, the oldest first; never empty.
    sources: HashMap<Source, BTreeMap<u64, Arc<Notify>>>,
    /// The sources by how many places they have and then by whose oldest is older: the last is the next to lose one.
    ranking: BTreeMap<(usize, Reverse<u64>), Source>,
}

impl Taken {
    fn add(&mut self, source: Source, lost: Arc<Notify>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.change(source, |places| places.insert(number, lost));
        number
    }

    fn remove(&mut self, source: Source, number: u64) {
        self.change(source, |places| places.remove(&number));
    }

    fn displace(&mut self, connections: usize) {
        for _ in 0..connections {
            let Some(&source) = self.ranking.last_key_value().map(|(_, source)| source) else {
                return;
            };
            if let Some((_, lost)) = self.change(source, BTreeMap::pop_first) {
                lost.notify_one();
            }
        }
    }

    /// Changes the places of one source.
    fn change<T>(
        &mut self,
        source: Source,
        change: impl FnOnce(&mut BTreeMap<u64, Arc<Notify>>) -> T,
    ) -> T {
        let places = self.sources.entry(source).or_default();
        if let Some(rank) = rank(places) {
            self.ranking.remove(&rank);
        }
        self.len -= places.len();
        let changed = change(places);
        self.len += places.len();
        match rank(places) {
            Some(rank) => {
                self.ranking.insert(rank, source);
            }
            None => {
                self.sources.remove(&source);
            }
        }
        changed
    }
}

/// How a source with these places stands among the others; `None` without any.
fn rank(places: &BTreeMap<u64, Arc<Notify>>) -> Option<(usize, Reverse<u64>)> {
    let (&oldest, _) = places.first_key_value()?;
    Some((places.len(), Reverse(oldest)))
}

/// As whom limits count an address: whoever has one IPv6 address has its whole /64.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A panic while it is held cannot happen: what is done under the lock does not fail.
fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
