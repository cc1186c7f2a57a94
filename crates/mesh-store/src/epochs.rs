//! The epoch log: the newest snapshots and what each changed, for readers that hold a cursor.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use arc_swap::ArcSwap;
use mesh_state::{ChangeSet, Snapshot};
use tokio::sync::watch;

/// Of how many epochs the log knows what they changed. A reader that falls further behind starts again from a whole
/// snapshot; at one batch per millisecond that takes four seconds.
pub const EPOCHS_MAX: usize = 4096;

/// How many of the newest snapshots the log keeps alive. An older one costs the nodes that changed since, so it lives
/// only as long as a reader holds it: the snapshot at its cursor.
const SNAPSHOTS_KEPT: usize = 64;

/// What lies between a reader's cursor and the newest epoch.
#[derive(Debug, Clone)]
pub struct Span {
    /// The snapshot at the cursor.
    pub from: Arc<Snapshot>,
    /// The newest snapshot.
    pub to: Arc<Snapshot>,
    /// What may differ between the two.
    pub changes: ChangeSet,
}

/// One published snapshot and what it changed.
#[derive(Debug)]
struct Epoch {
    number: u64,
    snapshot: Weak<Snapshot>,
    changes: ChangeSet,
}

/// The newest epochs, in order and without gaps.
#[derive(Debug, Default)]
struct Log {
    epochs: VecDeque<Epoch>,
    /// The snapshots of the newest of them.
    kept: VecDeque<Arc<Snapshot>>,
}

impl Log {
    /// Adds an epoch; returns a snapshot that is no longer kept, for the caller to drop outside of locks.
    fn push(&mut self, snapshot: Arc<Snapshot>, changes: ChangeSet) -> Option<Arc<Snapshot>> {
        if self.epochs.len() == EPOCHS_MAX {
            self.epochs.pop_front();
        }
        let number = snapshot.epoch;
        self.epochs.push_back(Epoch { number, snapshot: Arc::downgrade(&snapshot), changes });
        self.kept.push_back(snapshot);
        if self.kept.len() > SNAPSHOTS_KEPT { self.kept.pop_front() } else { None }
    }
}

/// Published snapshots: the newest for everybody, the last few for readers with a cursor.
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
        log.push(snapshot.clone(), ChangeSet::default());
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
        let forgotten = {
            let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
            let forgotten = log.push(snapshot.clone(), changes);
            self.newest.store(snapshot);
            forgotten
        };
        self.published.send_replace(number);
        drop(forgotten);
    }

    /// What lies between the epoch `cursor` and the newest; `None` if the cursor fell out of the log, or is older than
    /// the snapshots that are kept and nobody holds its own.
    pub(crate) fn since(&self, cursor: u64) -> Option<Span> {
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        let oldest = log.epochs.front()?.number;
        let at = usize::try_from(cursor.checked_sub(oldest)?).ok()?;
        let from = log.epochs.get(at)?.snapshot.upgrade()?;
        let mut changes = ChangeSet::default();
        for epoch in log.epochs.range(at + 1..) {
            changes.extend(&epoch.changes);
        }
        Some(Span { from, to: log.kept.back()?.clone(), changes })
    }
}
