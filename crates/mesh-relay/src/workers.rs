//! Threads that connections stay on: one for each core, and on each whoever has had least goes first.
//!
//! A runtime that gives every task its turn in a row makes a client with one packet wait for all that flood the
//! relay. Here turns are paid for, mostly by what a connection has sent ([`charge`]): writing to a client and reading
//! from one that is quiet come before the next piece of a flood, and so what was read is written before more is read.
//! No turn is free, so that nobody keeps coming before the others for ever.

mod run_queue;

use std::any::Any;
use std::cell::Cell;
use std::io;
use std::mem;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use atomic_waker::AtomicWaker;
use slab::Slab;
use tokio::runtime;

use run_queue::RunQueue;

/// What is charged until the sockets are asked again who else has something to say: about one turn.
const ROUND_CHARGE: u64 = 64 << 10;

/// What a turn costs at least: a round is 64 turns at the most.
const TURN_CHARGE_MIN: u64 = ROUND_CHARGE / 64;

/// What agreeing on a secret with a client is charged for, as bytes that it sends: it costs about as much time.
pub(crate) const HANDSHAKE_CHARGE: u64 = 64 << 10;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// What the task that runs on this thread has used in its turn.
    static CHARGED: Cell<u64> = const { Cell::new(0) };
}

/// Has the task that runs pay for its turn: about as many as the bytes that it took in.
pub(crate) fn charge(amount: u64) {
    CHARGED.set(CHARGED.get().saturating_add(amount));
}

/// The threads. They end when this is dropped, and so do the tasks on them.
#[derive(Debug)]
pub(crate) struct Workers(Vec<Arc<Inbox>>);

/// The threads of a relay, for as long as one of its listeners has them.
#[derive(Debug, Default)]
pub(crate) struct SharedWorkers(Mutex<Weak<Workers>>);

impl SharedWorkers {
    /// The threads that another listener has, or new ones.
    pub(crate) fn get_or_start(&self) -> io::Result<Arc<Workers>> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(workers) = shared.upgrade() {
            return Ok(workers);
        }
        let workers = Arc::new(Workers::start()?);
        *shared = Arc::downgrade(&workers);
        Ok(workers)
    }
}

impl Workers {
    /// Starts a thread for each core that this process may use.
    fn start() -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, NonZero::get);
        let mut workers = Self(Vec::with_capacity(count));
        for number in 0..count {
            // Its one task goes back to the sockets after every round.
            let runtime =
                runtime::Builder::new_current_thread().enable_all().event_interval(1).build()?;
            let inbox = Arc::new(Inbox::default());
            let worker = Worker::new(Arc::clone(&inbox));
            workers.0.push(inbox);
            thread::Builder::new().name(format!("derp-{number}")).spawn(move || {
                // As a task of its own, for waking that costs no system call.
                let run = || runtime.block_on(async { tokio::spawn(worker).await });
                if !matches!(catch_unwind(AssertUnwindSafe(run)), Ok(Ok(()))) {
                    // Its connections hang, and it would be given all new ones: better to be started again.
                    tracing::error!("a thread of the relay ended by a panic: so must all");
                    process::abort();
                }
            })?;
        }
        Ok(workers)
    }

    /// Runs a task on the thread that has the fewest. What it opens or times is made there, in its first turn.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let Some(inbox) = self.0.iter().min_by_key(|inbox| inbox.tasks.load(Ordering::Relaxed))
        else {
            return;
        };
        inbox.tasks.fetch_add(1, Ordering::Relaxed);
        inbox.lock().new.push(Box::pin(task));
        inbox.rouse();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for inbox in &self.0 {
            inbox.lock().is_closed = true;
            inbox.rouse();
        }
    }
}

/// What others have for a worker.
#[derive(Debug, Default)]
struct Inbox {
    mail: Mutex<Mail>,
    /// Whether the worker looks at its mail anyway before it rests.
    is_awake: AtomicBool,
    waker: AtomicWaker,
    /// Tasks that are on the worker or on their way there.
    tasks: AtomicUsize,
}

#[derive(Default)]
struct Mail {
    new: Vec<Task>,
    woken: Vec<usize>,
    is_closed: bool,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Mail> {
        // Nothing in here is ever half-changed.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rouse(&self) {
        if !self.is_awake.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }
}

/// Puts a task back among those that are ready, once until its next turn.
#[derive(Debug)]
struct Alarm {
    inbox: Arc<Inbox>,
    id: usize,
    is_set_off: AtomicBool,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_set_off.swap(true, Ordering::AcqRel) {
            self.inbox.lock().woken.push(self.id);
            self.inbox.rouse();
        }
    }
}

/// A task on its worker.
struct Seat {
    task: Task,
    alarm: Arc<Alarm>,
    waker: Waker,
    used: u64,
}

/// One thread's tasks, and whose turn it is.
struct Worker {
    inbox: Arc<Inbox>,
    seats: Slab<Seat>,
    queue: RunQueue,
    /// Room for what is taken out of the inbox.
    woken: Vec<usize>,
}

impl Worker {
    fn new(inbox: Arc<Inbox>) -> Self {
        Self { inbox, seats: Slab::new(), queue: RunQueue::default(), woken: Vec::new() }
    }

    /// Takes what has come. Says whether the worker is to end.
    fn collect(&mut self) -> bool {
        let mut mail = self.inbox.lock();
        mem::swap(&mut self.woken, &mut mail.woken);
        let (new, is_closed) = (mem::take(&mut mail.new), mail.is_closed);
        drop(mail);
        for id in self.woken.drain(..) {
            // It may have ended since it was woken, and another have its seat, which may be asked for nothing.
            if let Some(seat) = self.seats.get_mut(id) {
                self.queue.push(id, &mut seat.used);
            }
        }
        for task in new {
            self.seat(task);
        }
        is_closed
    }

    fn seat(&mut self, task: Task) {
        let entry = self.seats.vacant_entry();
        let id = entry.key();
        let alarm = Alarm { inbox: Arc::clone(&self.inbox), id, is_set_off: AtomicBool::new(true) };
        let alarm = Arc::new(alarm);
        let waker = Waker::from(Arc::clone(&alarm));
        let seat = entry.insert(Seat { task, alarm, waker, used: 0 });
        self.queue.push(id, &mut seat.used);
    }

    /// Gives a task its turn, and says what it used.
    fn turn(&mut self, id: usize) -> u64 {
        let Some(seat) = self.seats.get_mut(id) else { return 0 };
        // Reads it too, for this turn to see what all did who have woken the task up to now.
        seat.alarm.is_set_off.swap(false, Ordering::AcqRel);
        CHARGED.set(0);
        let mut cx = Context::from_waker(&seat.waker);
        let polled = catch_unwind(AssertUnwindSafe(|| seat.task.as_mut().poll(&mut cx)));
        let charged = CHARGED.get().max(TURN_CHARGE_MIN);
        seat.used = seat.used.saturating_add(charged);
        match polled {
            Ok(Poll::Pending) => return charged,
            Ok(Poll::Ready(())) => {}
            Err(panic) => report(&*panic),
        }
        clear(self.seats.remove(id));
        self.inbox.tasks.fetch_sub(1, Ordering::Relaxed);
        charged
    }
}

impl Future for Worker {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.inbox.waker.register(cx.waker());
        this.inbox.is_awake.store(true, Ordering::Release);
        let mut charged = 0;
        while charged < ROUND_CHARGE {
            if this.collect() {
                mem::take(&mut this.seats).into_iter().for_each(|(_, seat)| clear(seat));
                return Poll::Ready(());
            }
            let Some(id) = this.queue.pop() else { break };
            charged += this.turn(id);
        }
        if this.queue.is_empty() {
            this.inbox.is_awake.store(false, Ordering::SeqCst);
            let mail = this.inbox.lock();
            if mail.woken.is_empty() && mail.new.is_empty() && !mail.is_closed {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Drops a task, which may panic as its turns may.
fn clear(seat: Seat) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(seat))) {
        report(&*panic);
    }
}

/// The panic hook has told of it; the connection is gone and no other.
fn report(panic: &(dyn Any + Send)) {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(message, "a relay's connection ended by a panic");
}

impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mail").field("new", &self.new.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
