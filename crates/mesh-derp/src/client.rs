//! One logged-in connection as the rest of the relay sees it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use atomic_waker::AtomicWaker;
use mesh_keys::NodePublic;

use crate::outbox::{Batch, Outbox};
use crate::peer_present::PeerPresent;

/// One logged-in connection: a key, what waits to be written, and a way to cut it.
#[derive(Debug)]
pub struct Client {
    peer: PeerPresent,
    /// Whether packets for the key go to this connection: it is the one of its key that spoke last, and it
    /// has not left.
    active: AtomicBool,
    /// Whether the connection is to end.
    cut: AtomicBool,
    /// `None` once the connection has left.
    outbox: Mutex<Option<Outbox>>,
    /// Whose task is to be woken when the outbox ceases to be empty, or the connection is to end.
    waker: AtomicWaker,
}

impl Client {
    /// A connection of the client that others know as `peer`.
    pub(crate) fn new(peer: PeerPresent) -> Self {
        Self {
            peer,
            active: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            outbox: Mutex::new(Some(Outbox::default())),
            waker: AtomicWaker::new(),
        }
    }

    /// The client's node key.
    pub fn key(&self) -> NodePublic {
        self.peer.key
    }

    /// Whether it is of our mesh: another relay, or somebody who watches this one.
    pub fn is_mesh(&self) -> bool {
        self.peer.is_mesh()
    }

    pub(crate) fn peer(&self) -> PeerPresent {
        self.peer
    }

    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    pub(crate) fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Release);
    }

    /// Whether the connection is to end: somebody has cut it.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether the connection has left: nothing is taken for it any more.
    pub(crate) fn has_left(&self) -> bool {
        lock(&self.outbox).is_none()
    }

    /// Puts something into the outbox; `None` if the connection has left.
    pub(crate) fn push<T>(&self, push: impl FnOnce(&mut Outbox) -> T) -> Option<T> {
        let mut guard = lock(&self.outbox);
        let outbox = guard.as_mut()?;
        let was_empty = outbox.is_empty();
        let pushed = push(outbox);
        drop(guard);
        if was_empty {
            self.waker.wake();
        }
        Some(pushed)
    }

    /// Appends what waits to `out`, about `bytes_max` bytes of packets at most, and says which packets that were.
    pub fn drain(&self, out: &mut Vec<u8>, bytes_max: usize) -> Batch {
        let mut outbox = lock(&self.outbox);
        outbox.as_mut().map(|outbox| outbox.poll_output(out, bytes_max)).unwrap_or_default()
    }

    /// Has `waker` woken when the outbox ceases to be empty from here on, or the connection is to end.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Takes nothing more, and says which packets waited in vain.
    pub(crate) fn close(&self) -> Batch {
        let mut outbox = lock(&self.outbox).take().unwrap_or_default();
        let (mut waited, mut out) = (Batch::default(), Vec::new());
        while !outbox.is_empty() {
            out.clear();
            for (waited, more) in waited.iter_mut().zip(outbox.poll_output(&mut out, usize::MAX)) {
                *waited += more;
            }
        }
        waited
    }
}

/// Locks a mutex whose holders never leave its value half-changed, not even by a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
