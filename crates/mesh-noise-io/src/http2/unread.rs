//! Whether the client reads what its answers give.
//!
//! A client that stops reading does not always stop the connection: stock clients go on reading frames, and
//! only grant a stream no more room. Then the body that gave a piece last is not asked for another.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// Counts of a connection's bodies.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// Bodies that were asked, ever.
    asked: AtomicU64,
    /// Bodies that gave a piece and were not asked again since.
    waiting: AtomicU64,
}

/// A body that tells whether its pieces are read.
pub(super) struct Watched<B> {
    body: Pin<Box<B>>,
    unread: Arc<Unread>,
    is_waiting: bool,
}

impl<B> Watched<B> {
    pub(super) fn new(body: B, unread: Arc<Unread>) -> Self {
        Self { body: Box::pin(body), unread, is_waiting: false }
    }

    fn set_waiting(&mut self, is_waiting: bool) {
        match (self.is_waiting, is_waiting) {
            (false, true) => drop(self.unread.waiting.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.unread.waiting.fetch_sub(1, Ordering::Relaxed)),
            (false, false) | (true, true) => {}
        }
        self.is_waiting = is_waiting;
    }
}

impl<B> Drop for Watched<B> {
    fn drop(&mut self) {
        self.set_waiting(false);
    }
}

impl<B: Body> Body for Watched<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.unread.asked.fetch_add(1, Ordering::Relaxed);
        self.set_waiting(false);
        let frame = ready!(self.body.as_mut().poll_frame(cx));
        self.set_waiting(frame.is_some());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Notices when a client has read nothing of its answers for a time.
#[derive(Debug)]
pub(super) struct Watch {
    unread: Arc<Unread>,
    patience: Duration,
    /// Runs while bodies wait: since when, by how often any was asked.
    running: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Watch {
    pub(super) fn new(unread: Arc<Unread>, patience: Duration) -> Self {
        Self { unread, patience, running: None }
    }

    /// Ready once bodies have waited for too long, and none was asked meanwhile.
    pub(super) fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unread.waiting.load(Ordering::Relaxed) == 0 {
            self.running = None;
            return Poll::Pending;
        }
        let asked = self.unread.asked.load(Ordering::Relaxed);
        let (before, timer) =
            self.running.get_or_insert_with(|| (asked, Box::pin(sleep(self.patience))));
        if *before != asked {
            *before = asked;
            timer.as_mut().reset(Instant::now() + self.patience);
        }
        timer.as_mut().poll(cx)
    }
}
