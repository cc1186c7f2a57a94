//! The epoch log: the newest snapshot, and what the last few changed, for readers that hold a cursor.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use mesh_state::{ChangeSet, Snapshot};
use tokio::sync::watch;

/// Of how many epochs the log knows what they changed. A reader that falls further behind starts again from a whole
/// snapshot; at one batch per millisecond that takes four seconds.
pub const EPOCHS_MAX: usize = 4096;

/// What lies between a reader's cursor and the newest epoch.
#[derive(Debug, Clone)]
pub struct Span {
    /// The newest snapshot.
    pub to: Arc<Snapshot>,
    /// What may differ between the snapshot at the cursor, which is the reader's to keep, and the newest.
    pub changes: ChangeSet,
}

/// An epoch and what it changed.
#[derive(Debug)]
struct Epoch {
    number: u64,
    changes: ChangeSet,
}

/// The newest epochs, in order and without gaps.
#[derive(Debug, Default)]
struct Log(VecDeque<Epoch>);

impl Log {
    fn push(&mut self, number: u64, changes: ChangeSet) {
        if self.0.len() == EPOCHS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Epoch { number, changes });
    }
}

/// The newest snapshot for everybody, and the way to it for readers with a cursor.
#[derive(Debug)]
pub(crate) struct Epochs {
    newest: ArcSwap<Snapshot>,
    /// The last one is `newest`.
    log: RwLock<Log>,
    published: watch::Sender<u64>,
}

impl Epochs {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        let published = watch::Sender::new(snapshot.epoch);
        let snapshot = Arc::new(snapshot);
        let mut log = Log::default();
        log.push(snapshot.epoch, ChangeSet::default());
        Self { newest: ArcSwap::new(snapshot), log: RwLock::new(log), published }
    }

    pub(crate) fn newest(&self) -> Arc<Snapshot> {
        self.newest.load_full()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    pub(crate) fn publish(&self, snapshot: Snapshot, changes: ChangeSet) {
        let number = snapshot.epoch;
        let snapshot = Arc::new(snapshot);
        // Under the lock, so that nobody reads a log that ends elsewhere.
        let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
        log.push(number, changes);
        let last = self.newest.swap(snapshot);
        drop(log);
        self.published.send_replace(number);
        drop(last);
    }

    /// What lies between the epoch `cursor` and the newest; `None` if the cursor fell out of the log.
    pub(crate) fn since(&self, cursor: u64) -> Option<Span> {
        let Log(epochs) = &*self.log.read().unwrap_or_else(PoisonError::into_inner);
        let at = usize::try_from(cursor.checked_sub(epochs.front()?.number)?).ok()?;
        epochs.get(at)?;
        let mut changes = ChangeSet::default();
        for epoch in epochs.range(at + 1..) {
            changes.extend(&epoch.changes);
        }
        Some(Span { to: self.newest(), changes })
    }
}
