//! The beat: turns the store's epochs into flushes, as often as clients can use.

use std::sync::Arc;

use mesh_netmap::{Audience, MapContext, Step};
use mesh_state::{ChangeSet, Snapshot};
use mesh_store::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::flush::{Flush, Flushes};
use crate::metrics::Metrics;
use crate::progress::OpenStreams;
use crate::versions::Versions;
use crate::window::Window;

/// The one task that publishes flushes.
#[derive(Debug)]
pub(crate) struct Beat {
    store: Handle,
    contexts: watch::Receiver<Arc<MapContext>>,
    flushes: Arc<Flushes>,
    open: Arc<OpenStreams>,
    versions: Versions,
    window: Window,
    /// When the first of the changes was noticed that the next flush tells of.
    changed_at: Instant,
    metrics: Metrics,
}

impl Beat {
    pub(crate) fn new(
        store: Handle,
        mut contexts: watch::Receiver<Arc<MapContext>>,
        open: Arc<OpenStreams>,
        metrics: Metrics,
    ) -> Self {
        let changed_at = Instant::now();
        let versions = Versions::default();
        let context = contexts.borrow_and_update().clone();
        let snapshot = store.snapshot();
        let first = Flush { number: 0, snapshot, context, changed_at, versions: versions.clone() };
        let flushes = Arc::new(Flushes::new(first));
        let window = Window::new();
        Self { store, contexts, flushes, open, versions, window, changed_at, metrics }
    }

    pub(crate) fn flushes(&self) -> Arc<Flushes> {
        self.flushes.clone()
    }

    /// Publishes until it is told to stop, or the store or the contexts end.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(self.wait()).await == Some(true) {
            self.flush();
        }
    }

    /// Waits until there is something to flush, and its time has come; `false` if there will be nothing any more.
    async fn wait(&mut self) -> bool {
        let told = self.flushes.newest();
        let mut epochs = self.store.subscribe();
        let has_changed = tokio::select! {
            changed = epochs.wait_for(|newest| *newest > told.snapshot.epoch) => changed.is_ok(),
            changed = self.contexts.changed() => changed.is_ok(),
        };
        if !has_changed {
            return false;
        }
        let changed_at = Instant::now();
        self.changed_at = changed_at;
        loop {
            let is_urgent = !has_same_policy(&told.snapshot, &self.store.snapshot());
            let due = self.window.due(changed_at, is_urgent);
            epochs.borrow_and_update();
            tokio::select! {
                () = sleep_until(due) => return true,
                // What follows may be urgent.
                changed = epochs.changed() => {
                    if changed.is_err() {
                        return false;
                    }
                }
            }
        }
    }

    fn flush(&mut self) {
        let told = self.flushes.newest();
        let number = told.number + 1;
        let (snapshot, changes) = match self.store.since(told.snapshot.epoch) {
            Some(span) => (span.to, Some(span.changes)),
            None => (self.store.snapshot(), None),
        };
        self.versions.note(number, changes.as_ref());
        let context = self.contexts.borrow_and_update().clone();
        let (changed_at, versions) = (self.changed_at, self.versions.clone());
        let flush = Arc::new(Flush { number, snapshot, context, changed_at, versions });
        let audience = audience(&told, &flush, changes.as_ref());
        let passed = self.flushes.publish(flush.clone(), changes);
        self.open.pass(&flush, &audience);
        let epochs = flush.snapshot.epoch - told.snapshot.epoch;
        let (streams, effort) = (self.open.count(), self.flushes.take_effort());
        self.window.flushed(Instant::now(), epochs, streams, effort);
        self.metrics.flushed(changed_at);
        drop(passed);
    }
}

/// Whom it concerns that a flush follows another.
fn audience(from: &Flush, to: &Flush, changes: Option<&ChangeSet>) -> Audience {
    let changes = changes.filter(|_| Arc::ptr_eq(&from.context, &to.context));
    let step = |changes| {
        let (from, context) = (&from.snapshot, &to.context);
        Step { from, to: &to.snapshot, changes, context }
    };
    changes.map_or(Audience::Everybody, |changes| step(changes).audience())
}

fn has_same_policy(one: &Snapshot, other: &Snapshot) -> bool {
    Arc::ptr_eq(one.policy.policy(), other.policy.policy())
}
