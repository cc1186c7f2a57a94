//! The way out of a stack.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

use crate::batch::PacketBatch;
use crate::stack::Shared;

/// Hands out what a stack wants to send. There is one per stack.
///
/// It also drives the stack: connections make progress, and their timers run, only while somebody asks for
/// packets. Dropping it closes the stack for good: sockets fail with
/// [`NetworkDown`](std::io::ErrorKind::NetworkDown).
#[derive(Debug)]
pub struct Outgoing {
    shared: Arc<Shared>,
    /// Until the next timer of a connection.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Outgoing {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, sleep: None }
    }

    /// Waits for packets to be sent and puts them into `batch`, whose content it forgets first. Safe to
    /// cancel.
    pub async fn next_batch(&mut self, batch: &mut PacketBatch) {
        poll_fn(|cx| self.poll_batch(batch, cx)).await;
    }

    /// Puts packets into `batch`, or wakes the task when there are some; see
    /// [`next_batch`](Self::next_batch).
    ///
    /// Connections give up to 64 packets at a time; with answers and datagrams there are at most 512.
    pub fn poll_batch(&mut self, batch: &mut PacketBatch, cx: &mut Context<'_>) -> Poll<()> {
        batch.clear();
        loop {
            let wake_at = {
                let (mut inner, now) = self.shared.lock();
                inner.fill(batch, now);
                if !batch.is_empty() {
                    return Poll::Ready(());
                }
                inner.wait(cx.waker()).map(|at| self.shared.to_tokio(at))
            };
            let Some(wake_at) = wake_at else { return Poll::Pending };
            ready!(self.poll_sleep(wake_at, cx));
        }
    }

    fn poll_sleep(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if sleep.deadline() != until {
            sleep.as_mut().reset(until);
        }
        sleep.as_mut().poll(cx)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.shared.lock().0.close();
    }
}
