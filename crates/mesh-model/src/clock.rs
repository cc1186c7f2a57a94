//! Time as the cores see it: an instant that is passed in.

pub use jiff::Timestamp;

/// Where the rim takes the time from. The cores never ask it; they are handed its answer.
pub trait Clock: std::fmt::Debug + Send + Sync {
    /// The current time, truncated to milliseconds, as the database keeps it.
    fn now(&self) -> Timestamp;
}

/// Cuts an instant to whole milliseconds, so that a stored one equals the one in memory.
pub fn truncate_to_millis(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond())
        .expect("invariant: the milliseconds come from a timestamp")
}
