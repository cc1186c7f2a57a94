//! How far each open stream is: for the beat, which wakes those that a flush concerns and moves the others on, and for
//! people who look into a running server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_model::{NodeId, SessionId};
use mesh_netmap::Audience;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::flush::Flush;

/// How far an open stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamStatus {
    /// Whose it is.
    pub node: NodeId,
    /// Its session.
    pub session: SessionId,
    /// How long it has been open.
    pub open_for: Duration,
    /// How many flushes it is behind; `None` while it was told of none.
    pub flushes_behind: Option<u64>,
    /// Messages that its transport took.
    pub messages: u64,
    /// Bytes of these messages, as they were before encryption.
    pub bytes: u64,
}

/// Where an open stream is, and what it notes as it goes.
#[derive(Debug)]
pub(crate) struct Progress {
    node: NodeId,
    pub(crate) opened_at: Instant,
    /// The flush that it was told of last.
    cursor: Mutex<Option<Arc<Flush>>>,
    /// Wakes it.
    news: Notify,
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Progress {
    pub(crate) fn cursor(&self) -> Option<Arc<Flush>> {
        lock(&self.cursor).clone()
    }

    pub(crate) fn stand_at(&self, flush: Arc<Flush>) {
        *lock(&self.cursor) = Some(flush);
    }

    /// Waits until there may be something to tell.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// Moves a stream on that a flush does not concern and that was told of the one before; wakes any other.
    fn pass(&self, flush: &Arc<Flush>, audience: &Audience) {
        if !audience.contains(self.node)
            && let Some(cursor) = &mut *lock(&self.cursor)
            && cursor.number + 1 == flush.number
        {
            *cursor = flush.clone();
            return;
        }
        self.news.notify_one();
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn status(&self, session: SessionId, newest: u64) -> StreamStatus {
        let cursor = lock(&self.cursor);
        StreamStatus {
            node: self.node,
            session,
            open_for: self.opened_at.elapsed(),
            flushes_behind: cursor.as_ref().map(|told| newest.saturating_sub(told.number)),
            messages: self.messages.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// All open streams.
#[derive(Debug, Default)]
pub(crate) struct OpenStreams(Mutex<HashMap<SessionId, Arc<Progress>>>);

impl OpenStreams {
    pub(crate) fn add(&self, node: NodeId, session: SessionId) -> Arc<Progress> {
        let progress = Arc::new(Progress {
            node,
            opened_at: Instant::now(),
            cursor: Mutex::default(),
            news: Notify::new(),
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        // It begins with a full map.
        progress.news.notify_one();
        lock(&self.0).insert(session, progress.clone());
        progress
    }

    pub(crate) fn remove(&self, session: SessionId) {
        lock(&self.0).remove(&session);
    }

    /// Where all of them are while `newest` is the number of the newest flush, in no order.
    pub(crate) fn status(&self, newest: u64) -> Vec<StreamStatus> {
        lock(&self.0).iter().map(|(session, progress)| progress.status(*session, newest)).collect()
    }

    pub(crate) fn count(&self) -> usize {
        lock(&self.0).len()
    }

    /// Has those know of a flush whom it may concern. It has been published.
    pub(crate) fn pass(&self, flush: &Arc<Flush>, audience: &Audience) {
        lock(&self.0).values().for_each(|progress| progress.pass(flush, audience));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
