//! Wakers within one task, so that it polls only what was woken, and is not scheduled again by what it does
//! itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use futures_util::task::AtomicWaker;

/// The two things that a channel's task polls.
pub(super) struct Wakes {
    /// The connection of HTTP/2.
    pub(super) connection: Signal,
    /// The requests in it.
    pub(super) jobs: Signal,
    /// The task, while it sleeps.
    task: Arc<AtomicWaker>,
}

impl Wakes {
    /// Both are due.
    pub(super) fn new() -> Self {
        let task = Arc::new(AtomicWaker::new());
        Self { connection: Signal::new(&task), jobs: Signal::new(&task), task }
    }

    /// From here on until [`Self::park`] nothing wakes the task: it looks by itself.
    pub(super) fn unpark(&self) {
        self.task.take();
    }

    /// Whether nothing is due.
    pub(super) fn are_quiet(&self) -> bool {
        !self.connection.is_due() && !self.jobs.is_due()
    }

    /// Has `task` woken by whatever comes next; `false` if something came just then.
    pub(super) fn park(&self, task: &Waker) -> bool {
        self.task.register(task);
        let is_quiet = self.are_quiet();
        if !is_quiet {
            self.unpark();
        }
        is_quiet
    }
}

/// Whether one of the two is due.
pub(super) struct Signal {
    state: Arc<State>,
    waker: Waker,
}

struct State {
    is_due: AtomicBool,
    task: Arc<AtomicWaker>,
}

impl Signal {
    fn new(task: &Arc<AtomicWaker>) -> Self {
        let state = Arc::new(State { is_due: AtomicBool::new(true), task: task.clone() });
        Self { waker: state.clone().into(), state }
    }

    /// Wakes the task for this.
    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Makes it due.
    pub(super) fn set(&self) {
        self.state.is_due.store(true, Ordering::Release);
    }

    /// Whether it is due; from here on it no longer is.
    pub(super) fn take(&self) -> bool {
        self.state.is_due.swap(false, Ordering::AcqRel)
    }

    fn is_due(&self) -> bool {
        self.state.is_due.load(Ordering::Acquire)
    }
}

impl Wake for State {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Once it is due, somebody has woken the task, or it is awake.
        if !self.is_due.swap(true, Ordering::AcqRel) {
            self.task.wake();
        }
    }
}
