//! A clock that stands still until it is turned.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use mesh_model::{Clock, Timestamp};

/// The instant `seconds` after the epoch of all tests, which lies in 2026.
pub fn at(seconds: i64) -> Timestamp {
    const EPOCH: i64 = 1_780_000_000;
    Timestamp::from_second(EPOCH + seconds).expect("invariant: tests stay near their epoch")
}

/// A clock that stands still until it is turned.
#[derive(Debug)]
pub struct TestClock(AtomicI64);

impl TestClock {
    /// A clock that shows `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.as_millisecond()))
    }

    /// Turns it forward.
    pub fn advance(&self, by: Duration) {
        let millis =
            i64::try_from(by.as_millis()).expect("invariant: tests turn it by less than an age");
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.0.load(Ordering::SeqCst))
            .expect("invariant: tests stay near their epoch")
    }
}
