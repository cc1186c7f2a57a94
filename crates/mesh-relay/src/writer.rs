//! The writer of a client: empties its outbox, one write for all that waits, and keeps the connection alive.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh_derp::{Batch, ServerFrame};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, interval_at, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::client::Client;
use crate::connection::ConnectionError;
use crate::stats::{DropReason, RelayStats};

/// How long a write may make no progress until the connection is cut.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(2);

/// How often a client hears that the connection is alive, but for up to [`KEEPALIVE_JITTER_MS`] more. Clients
/// give up after 120 seconds of silence.
pub const KEEPALIVE_PERIOD: Duration = Duration::from_mins(1);

/// Spreads the keepalives of clients that came together.
const KEEPALIVE_JITTER_MS: u64 = 5000;

/// How long saying goodbye may take.
const CLOSE_DEADLINE: Duration = Duration::from_millis(500);

/// Bytes of buffer that are kept from one write to the next.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// Writes to one client.
pub(crate) struct Writer {
    pub(crate) client: Arc<Client>,
    pub(crate) stats: Arc<RelayStats>,
}

impl Writer {
    /// Starts the task that writes `first` to `io`, then whatever waits, until the client is cut; it cuts
    /// the client itself when a write fails.
    pub(crate) fn spawn<W>(
        self,
        io: W,
        first: Vec<u8>,
    ) -> AbortOnDropHandle<Result<(), ConnectionError>>
    where
        W: AsyncWrite + Unpin + Send + 'static,
    {
        AbortOnDropHandle::new(tokio::spawn(self.run(io, first)))
    }

    async fn run<W: AsyncWrite + Unpin>(
        self,
        mut io: W,
        first: Vec<u8>,
    ) -> Result<(), ConnectionError> {
        let cut = self.client.cut.clone();
        let result = tokio::select! {
            biased;
            () = cut.cancelled() => Ok(()),
            result = self.write_on(&mut io, first) => result,
        };
        cut.cancel();
        if matches!(result, Err(ConnectionError::WriteTimeout)) {
            self.stats.write_timeouts.fetch_add(1, Ordering::Relaxed);
        }
        let _ = timeout(CLOSE_DEADLINE, io.shutdown()).await;
        result
    }

    async fn write_on<W: AsyncWrite + Unpin>(
        &self,
        io: &mut W,
        mut bytes: Vec<u8>,
    ) -> Result<(), ConnectionError> {
        let period = KEEPALIVE_PERIOD + jitter();
        let mut keepalive = interval_at(Instant::now() + period, period);
        let mut batch = Batch::default();
        loop {
            if !bytes.is_empty() {
                self.write_batch(io, &bytes, batch).await?;
                bytes.clear();
                bytes.shrink_to(KEPT_BYTES_MAX);
            }
            batch = self.client.drain(&mut bytes);
            if bytes.is_empty() {
                tokio::select! {
                    biased;
                    () = self.client.woken() => {}
                    _ = keepalive.tick() => {
                        ServerFrame::KeepAlive.encode(&mut bytes);
                        self.client.release_memory();
                    }
                }
            }
        }
    }

    async fn write_batch<W: AsyncWrite + Unpin>(
        &self,
        io: &mut W,
        bytes: &[u8],
        batch: Batch,
    ) -> Result<(), ConnectionError> {
        // Counted as failed unless it succeeds, also if the task is cut in between.
        let mut outcome = Outcome { stats: &self.stats, batch, written: false };
        write_all(io, bytes).await?;
        outcome.written = true;
        Ok(())
    }
}

/// Counts a batch of packets when its write is over.
struct Outcome<'a> {
    stats: &'a RelayStats,
    batch: Batch,
    written: bool,
}

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        let counters = if self.written {
            &self.stats.sent
        } else {
            self.stats.dropped(DropReason::WriteFailed)
        };
        counters.add(&self.batch);
    }
}

/// Writes and flushes all of `bytes`, as long as it goes on.
pub(crate) async fn write_all<W: AsyncWrite + Unpin>(
    io: &mut W,
    mut bytes: &[u8],
) -> Result<(), ConnectionError> {
    while !bytes.is_empty() {
        let written = timeout(WRITE_DEADLINE, io.write(bytes)).await;
        match written.map_err(|_| ConnectionError::WriteTimeout)?? {
            0 => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            written => bytes = &bytes[written..],
        }
    }
    timeout(WRITE_DEADLINE, io.flush()).await.map_err(|_| ConnectionError::WriteTimeout)??;
    Ok(())
}

/// Some duration up to [`KEEPALIVE_JITTER_MS`], another for every client.
fn jitter() -> Duration {
    Duration::from_millis(RandomState::new().hash_one(()) % KEEPALIVE_JITTER_MS)
}
