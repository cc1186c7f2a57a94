//! Log lines about what may happen at every login.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The least time between two lines of a kind; how often it happened meanwhile is for the metrics to tell.
const PERIOD: Duration = Duration::from_mins(1);

/// When a kind of line was last written.
#[derive(Debug, Default)]
pub(crate) struct Rarely {
    last: Mutex<Option<Instant>>,
}

impl Rarely {
    /// Whether it is time for a line. If so, the next has to wait.
    pub(crate) fn is_due(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = last.is_none_or(|last| last.elapsed() >= PERIOD);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}
