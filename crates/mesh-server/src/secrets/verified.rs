//! What is remembered of keys: those that are known to be right, and verifications under way.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_model::SecretHash;
use tokio::sync::OnceCell;

use super::pool::Busy;

/// A keyed digest of a presented key.
pub(super) type Digest = blake3::Hash;

/// How many verified keys are remembered; older ones are verified again when they come.
pub(super) const VERIFIED_MAX: usize = 16_384;

/// Keys that were verified or minted, by the digest of their whole text.
///
/// An entry tells that the text matches a hash, whose salt no other has. It is worth nothing once the row is gone or
/// has another hash, which is how revocation by deletion reaches it.
#[derive(Debug, Default)]
pub(super) struct VerifiedKeys {
    /// Two halves: when the newer one is full, the older one is forgotten.
    halves: Mutex<Halves>,
}

#[derive(Debug, Default)]
struct Halves {
    newer: HashMap<Digest, SecretHash>,
    older: HashMap<Digest, SecretHash>,
}

impl VerifiedKeys {
    /// Whether it is remembered that the text of this digest matches this hash.
    pub(super) fn contains(&self, digest: &Digest, hash: &SecretHash) -> bool {
        lock(&self.halves).get(digest) == Some(hash)
    }

    /// Remembers that the text of this digest matches this hash.
    pub(super) fn insert(&self, digest: Digest, hash: SecretHash) {
        lock(&self.halves).insert(digest, hash);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let halves = lock(&self.halves);
        halves.newer.len() + halves.older.len()
    }
}

impl Halves {
    /// An entry that is asked for moves to the newer half.
    fn get(&mut self, digest: &Digest) -> Option<&SecretHash> {
        if let Some(hash) = self.older.remove(digest) {
            self.insert(*digest, hash);
        }
        self.newer.get(digest)
    }

    fn insert(&mut self, digest: Digest, hash: SecretHash) {
        if self.newer.len() >= VERIFIED_MAX / 2 {
            self.older = std::mem::take(&mut self.newer);
        }
        self.older.remove(&digest);
        self.newer.insert(digest, hash);
    }
}

/// Verifications under way: whoever comes with the same question waits for the same answer.
///
/// Holds one entry per question that somebody waits for, so its size is bounded by the number of requests.
#[derive(Debug, Default)]
pub(super) struct Flights {
    table: Mutex<HashMap<Digest, Flight>>,
}

#[derive(Debug, Default)]
struct Flight {
    verdict: Arc<OnceCell<bool>>,
    waiting: usize,
}

impl Flights {
    /// Answers a question by `work`, or by the same work that somebody else began.
    pub(super) async fn join(
        &self,
        question: Digest,
        work: impl Future<Output = Result<bool, Busy>>,
    ) -> Result<bool, Busy> {
        let seat = Seat::take(self, question);
        seat.verdict.get_or_try_init(|| work).await.copied()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.table).len()
    }
}

/// A place on a flight; the last one to leave clears it away.
struct Seat<'a> {
    flights: &'a Flights,
    question: Digest,
    verdict: Arc<OnceCell<bool>>,
}

impl<'a> Seat<'a> {
    fn take(flights: &'a Flights, question: Digest) -> Self {
        let mut table = lock(&flights.table);
        let flight = table.entry(question).or_default();
        flight.waiting += 1;
        let verdict = flight.verdict.clone();
        drop(table);
        Self { flights, question, verdict }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut table = lock(&self.flights.table);
        if let Some(flight) = table.get_mut(&self.question) {
            flight.waiting -= 1;
            if flight.waiting == 0 {
                table.remove(&self.question);
            }
        }
    }
}

/// Nothing under these locks panics half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
