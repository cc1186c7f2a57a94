//! How far each open stream is, for people who look into a running server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_model::{NodeId, SessionId};
use tokio::time::Instant;

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

/// What an open stream notes as it goes.
#[derive(Debug)]
pub(crate) struct Progress {
    node: NodeId,
    pub(crate) opened_at: Instant,
    /// Number of the flush it was told of last, plus one; zero for none.
    told: AtomicU64,
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Progress {
    pub(crate) fn told(&self, flush: u64) {
        self.told.store(flush + 1, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: u64) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn status(&self, session: SessionId, newest: u64) -> StreamStatus {
        let told = self.told.load(Ordering::Relaxed);
        StreamStatus {
            node: self.node,
            session,
            open_for: self.opened_at.elapsed(),
            flushes_behind: (told > 0).then(|| (newest + 1).saturating_sub(told)),
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
            told: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        self.lock().insert(session, progress.clone());
        progress
    }

    pub(crate) fn remove(&self, session: SessionId) {
        self.lock().remove(&session);
    }

    /// Where all of them are while `newest` is the number of the newest flush, in no order.
    pub(crate) fn status(&self, newest: u64) -> Vec<StreamStatus> {
        self.lock().iter().map(|(session, progress)| progress.status(*session, newest)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Progress>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
