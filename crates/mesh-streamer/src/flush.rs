//! Flushes: the moments that map streams are told of, all of them the same ones.
//!
//! Streams that step from flush to flush have the same way behind them, so what one viewer of a group is told serves
//! the next. What was sent is stored nowhere: it follows from the flush that a stream was told of.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use mesh_model::NodeId;
use mesh_netmap::{Comparisons, Group, MapContext, Step};
use mesh_state::{ChangeSet, Snapshot};
use tokio::time::Instant;

use crate::group::GroupFrames;
use crate::versions::Versions;

/// How many flushes back a stream may be and still be told of changes only. At the longest window, four minutes.
const FLUSHES_MAX: usize = 1024;

/// One moment that is told.
#[derive(Debug)]
pub(crate) struct Flush {
    /// Counts up by one.
    pub(crate) number: u64,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) context: Arc<MapContext>,
    /// When the first of the changes was noticed that it tells of.
    pub(crate) changed_at: Instant,
    /// When nodes last changed, by flush.
    pub(crate) versions: Versions,
}

/// The way from one flush to another in the same context, with what groups of viewers are told of it.
#[derive(Debug)]
pub(crate) struct Span {
    from: Arc<Flush>,
    to: Arc<Flush>,
    changes: Arc<ChangeSet>,
    /// When the first of these changes was noticed.
    pub(crate) changed_at: Instant,
    groups: Mutex<HashMap<Group, Arc<OnceLock<Arc<GroupFrames>>>>>,
    comparisons: Comparisons,
}

impl Span {
    pub(crate) fn step(&self) -> Step<'_> {
        Step {
            from: &self.from.snapshot,
            to: &self.to.snapshot,
            changes: &self.changes,
            context: &self.from.context,
        }
    }

    /// What the group of a viewer is told, made by whoever asks first.
    pub(crate) fn frames(&self, group: Group, viewer: NodeId) -> Arc<GroupFrames> {
        let frames = lock(&self.groups).entry(group).or_default().clone();
        let make = || Arc::new(GroupFrames::new(self.step().peers(viewer, &self.comparisons)));
        frames.get_or_init(make).clone()
    }
}

/// The ways to a flush, by the one that they begin at.
pub(crate) type Ways = HashMap<u64, Option<Arc<Span>>>;

/// What a flush changed, if that is known.
type Changed = Option<Arc<ChangeSet>>;

/// A flush that was passed.
#[derive(Debug)]
struct Passed {
    changed: Changed,
    changed_at: Instant,
}

/// The newest flush, and the ways to it.
#[derive(Debug)]
pub(crate) struct Flushes {
    kept: Mutex<Kept>,
    /// What streams took since the last flush to make what they were told of changes, in nanoseconds.
    effort: AtomicU64,
}

#[derive(Debug)]
struct Kept {
    newest: Arc<Flush>,
    /// What the last few flushes changed, up to the newest and without gaps.
    log: VecDeque<Passed>,
    /// The ways to the newest, by the flush that they begin at.
    spans: Ways,
}

impl Flushes {
    pub(crate) fn new(first: Flush) -> Self {
        let newest = Arc::new(first);
        let kept = Kept { newest, log: VecDeque::new(), spans: HashMap::new() };
        Self { kept: Mutex::new(kept), effort: AtomicU64::new(0) }
    }

    /// Notes the time that a stream took to make what it was told of changes.
    pub(crate) fn add_effort(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.effort.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The time that all streams took together since this was last asked.
    pub(crate) fn take_effort(&self) -> Duration {
        Duration::from_nanos(self.effort.swap(0, Ordering::Relaxed))
    }

    pub(crate) fn newest(&self) -> Arc<Flush> {
        lock(&self.kept).newest.clone()
    }

    /// Returns what is no longer wanted, to be dropped when all have been woken: that may be a lot.
    pub(crate) fn publish(&self, flush: Arc<Flush>, changed: Option<ChangeSet>) -> Ways {
        let mut kept = lock(&self.kept);
        if kept.log.len() == FLUSHES_MAX {
            kept.log.pop_front();
        }
        let changed_at = flush.changed_at;
        kept.log.push_back(Passed { changed: changed.map(Arc::new), changed_at });
        kept.newest = flush;
        std::mem::take(&mut kept.spans)
    }

    /// The newest flush, and the way to it from an earlier one, if that is still known.
    pub(crate) fn since(&self, from: &Arc<Flush>) -> (Arc<Flush>, Option<Arc<Span>>) {
        let mut kept = lock(&self.kept);
        let Kept { newest, log, spans } = &mut *kept;
        let span = spans.entry(from.number).or_insert_with(|| {
            let (changes, changed_at) = changes(log, newest.number - from.number)?;
            let (from, to) = (from.clone(), newest.clone());
            Some(Arc::new(Span {
                from,
                to,
                changes,
                changed_at,
                groups: Mutex::default(),
                comparisons: Comparisons::default(),
            }))
        });
        (newest.clone(), span.clone())
    }
}

/// What the last few flushes changed together, and since when, if that is known.
fn changes(log: &VecDeque<Passed>, flushes: u64) -> Option<(Arc<ChangeSet>, Instant)> {
    let start = log.len().checked_sub(usize::try_from(flushes).ok()?)?;
    let mut passed = log.range(start..);
    let Passed { changed: first, changed_at } = passed.next()?;
    let changes = passed.try_fold(first.clone()?, |mut changes, later| {
        Arc::make_mut(&mut changes).extend(later.changed.as_ref()?);
        Some(changes)
    });
    Some((changes?, *changed_at))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
