//! A bounded place for computing hashes, off the reactor.

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::Semaphore;

/// How many may wait for a core. At a millisecond each, the last one waits about four seconds on one core, which clients
/// put up with; beyond that the answer is [`Busy`], and whoever asked comes back later.
const WAITING_MAX: usize = 4096;

/// Too many wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("too many wait already")]
pub(super) struct Busy;

/// Runs blocking work on at most as many threads as there are cores.
#[derive(Debug)]
pub(super) struct Pool {
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Pool {
    /// As many at a time as there are cores, [`WAITING_MAX`] more in line.
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_bounds(cores, WAITING_MAX)
    }

    pub(super) fn with_bounds(running: usize, waiting: usize) -> Self {
        Self {
            admitted: Arc::new(Semaphore::new(running + waiting)),
            running: Arc::new(Semaphore::new(running)),
        }
    }

    /// Does the work, also if the caller goes away once it has begun.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let admitted = self.admitted.clone().try_acquire_owned().map_err(|_| Busy)?;
        let running = self.running.clone().acquire_owned().await.map_err(|_| Busy)?;
        let task = tokio::task::spawn_blocking(move || {
            let _permits = (admitted, running);
            work()
        });
        // The work does not panic; a runtime that shuts down takes no more of it.
        task.await.map_err(|_| Busy)
    }
}
