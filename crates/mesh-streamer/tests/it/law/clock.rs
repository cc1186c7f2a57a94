//! A clock that shows the runtime's virtual time.

use mesh_model::{Clock, Timestamp, truncate_to_millis};
use mesh_testkit::at;
use tokio::time::Instant;

/// Virtual time as an instant; only asked inside the runtime.
#[derive(Debug)]
pub(super) struct VirtualClock(Instant);

impl VirtualClock {
    /// A clock that starts now at the epoch of all tests.
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        truncate_to_millis(at(0) + self.0.elapsed())
    }
}
