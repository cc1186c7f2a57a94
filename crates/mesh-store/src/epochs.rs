//! The epoch log: the newest snapshots and what each changed, for readers that hold a cursor.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use mesh_state::{ChangeSet, Snapshot};
use tokio::sync::watch;

/// How many epochs the log holds. A reader that falls further behind starts again from a whole snapshot;
/// at one batch per millisecond that takes four seconds.
pub const EPOCHS_MAX: usize = 4096;

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
    snapshot: Arc<Snapshot>,
    changes: ChangeSet,
}

/// Published snapshots: the newest for everybody, the last few for readers with a cursor.
#[derive(Debug)]
pub(crate) struct Epochs {
    newest: ArcSwap<Snapshot>,
    /// In order, without gaps; the last one is `newest`.
    log: RwLock<VecDeque<Epoch>>,
    published: watch::Sender<u64>,
}

impl Epochs {
    pub(crate) fn new(snapshot: Snapshot) -> Self {
        let published = watch::Sender::new(snapshot.epoch);
        let snapshot = Arc::new(snapshot);
        let first = Epoch { snapshot: snapshot.clone(), changes: ChangeSet::default() };
        Self {
            newest: ArcSwap::new(snapshot),
            log: RwLock::new(VecDeque::from([first])),
            published,
        }
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
        {
            let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
            if log.len() == EPOCHS_MAX {
                log.pop_front();
            }
            log.push_back(Epoch { snapshot: snapshot.clone(), changes });
            self.newest.store(snapshot);
        }
        self.published.send_replace(number);
    }

    /// What lies between the epoch `cursor` and the newest; `None` if the cursor fell out of the log.
    pub(crate) fn since(&self, cursor: u64) -> Option<Span> {
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        let oldest = log.front()?.snapshot.epoch;
        let at = usize::try_from(cursor.checked_sub(oldest)?).ok()?;
        let mut changes = ChangeSet::default();
        for epoch in log.iter().skip(at + 1) {
            changes.extend(&epoch.changes);
        }
        Some(Span {
            from: log.get(at)?.snapshot.clone(),
            to: log.back()?.snapshot.clone(),
            changes,
        })
    }
}
