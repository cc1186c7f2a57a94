//! The writer of a client: empties its outbox, one write for all that waits, and keeps the connection alive.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_derp::{Batch, Client, DropReason, ServerFrame, recycle};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, Interval, Sleep, interval_at, sleep, timeout};

use crate::connection::ConnectionError;
use crate::link::Link;
use crate::mesh::MESH_WRITE_DEADLINE;
use crate::relay::Shared;
use crate::workers::charge;

/// How long a write may make no progress until the connection is cut, unless [`Limits::write_timeout`] says otherwise, and but
/// for [`MESH_WRITE_DEADLINE`].
///
/// [`Limits::write_timeout`]: crate::Limits::write_timeout
pub const WRITE_DEADLINE: Duration = Duration::from_secs(2);

/// How often a client hears that the connection is alive, but for up to [`KEEPALIVE_JITTER`] more. Clients
/// give up after 120 seconds of silence.
pub const KEEPALIVE_PERIOD: Duration = Duration::from_mins(1);

/// Spreads the keepalives of clients that came together.
const KEEPALIVE_JITTER: Duration = Duration::from_secs(5);

/// Bytes that are written at once, and after which others get their turn.
pub(crate) const WRITE_BYTES: usize = 64 << 10;

/// How many bytes are written for the charge of one that is read: a client is written to on behalf of those that send
/// to it. So many of them at once have what they send written as fast as it is read.
const BYTES_PER_CHARGE: usize = 16;

/// What is being written to one client.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    bytes: Vec<u8>,
    /// How many of them are written.
    written: usize,
    /// The packets among them.
    batch: Batch,
    keepalive: Interval,
    /// When the write is given up, and how much was sent when that was decided: there once it does not go on at once.
    gives_up: Option<(Pin<Box<Sleep>>, u64)>,
}

impl Writer {
    /// Begins with `bytes`.
    pub(crate) fn new(shared: Arc<Shared>, bytes: Vec<u8>) -> Self {
        let period = KEEPALIVE_PERIOD + jitter_below(KEEPALIVE_JITTER);
        let keepalive = interval_at(Instant::now() + period, period);
        Self { shared, bytes, written: 0, batch: Batch::default(), keepalive, gives_up: None }
    }

    /// Writes what waits for the client, as far as `io` takes it and for one turn, and keeps the connection alive.
    pub(crate) fn poll_write(
        &mut self,
        io: &mut impl Link,
        client: &Client,
        cx: &mut Context<'_>,
    ) -> Result<(), ConnectionError> {
        let mut bytes_left = WRITE_BYTES;
        loop {
            if !self.bytes.is_empty() {
                match self.poll_batch(io, cx) {
                    Poll::Ready(written) => written?,
                    Poll::Pending => return self.check_progress(client, io.sent_bytes(), cx),
                }
            }
            if bytes_left == 0 {
                cx.waker().wake_by_ref();
                return Ok(());
            }
            self.batch = client.drain(&mut self.bytes, WRITE_BYTES);
            bytes_left = bytes_left.saturating_sub(self.bytes.len());
            if self.bytes.is_empty() {
                recycle(mem::take(&mut self.bytes));
                if self.keepalive.poll_tick(cx).is_pending() {
                    return Ok(());
                }
                ServerFrame::KeepAlive.encode(&mut self.bytes);
            }
        }
    }

    /// Writes and flushes what there is.
    fn poll_batch(&mut self, io: &mut impl Link, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.bytes.len() {
            match ready!(Pin::new(&mut *io).poll_write(cx, &self.bytes[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => {
                    self.written += written;
                    charge((written / BYTES_PER_CHARGE) as u64);
                }
            }
        }
        ready!(Pin::new(io).poll_flush(cx))?;
        self.gives_up = None;
        self.shared.stats.sent.add(&mem::take(&mut self.batch));
        self.bytes.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Gives up if the write has made no progress for too long.
    fn check_progress(
        &mut self,
        client: &Client,
        sent: u64,
        cx: &mut Context<'_>,
    ) -> Result<(), ConnectionError> {
        if self.gives_up.as_ref().is_none_or(|(_, before)| *before != sent) {
            let deadline = if client.is_mesh() {
                MESH_WRITE_DEADLINE
            } else {
                self.shared.limits.write_timeout()
            };
            self.gives_up = Some((Box::pin(sleep(deadline)), sent));
        }
        let Some((sleep, _)) = &mut self.gives_up else { return Ok(()) };
        if sleep.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        Err(ConnectionError::WriteTimeout)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.stats.dropped(DropReason::WriteFailed).add(&self.batch);
    }
}

/// Writes and flushes all of `bytes`, as long as no part of it takes longer than `deadline`.
pub(crate) async fn write_all<W: AsyncWrite + Unpin>(
    io: &mut W,
    mut bytes: &[u8],
    deadline: Duration,
) -> Result<io::Result<()>, Elapsed> {
    while !bytes.is_empty() {
        match timeout(deadline, io.write(bytes)).await? {
            Ok(0) => return Ok(Err(io::ErrorKind::WriteZero.into())),
            Ok(written) => bytes = &bytes[written..],
            Err(error) => return Ok(Err(error)),
        }
    }
    timeout(deadline, io.flush()).await
}

/// Some duration below a limit that is not zero, another each time.
pub(crate) fn jitter_below(limit: Duration) -> Duration {
    let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(RandomState::new().hash_one(()) % nanos)
}
