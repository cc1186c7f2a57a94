//! Time as the cores see it: an instant that is passed in.

pub use jiff::Timestamp;

/// Where the rim takes the time from. The cores never ask it; they are handed its answer.
pub trait Clock: std::fmt::Debug + Send + Sync {
    /// The current time, truncated to milliseconds, as the database keeps it.
    fn now(&self) -> Timestamp;
}

/// Cuts an instant to whole milliseconds, so that a stored one equals the one in memory; to whole seconds in the
/// last second that a timestamp can tell, where there are no whole milliseconds.
pub fn truncate_to_millis(at: Timestamp) -> Timestamp {
    let seconds = || Timestamp::from_second(at.as_second());
    Timestamp::from_millisecond(at.as_millisecond())
        .or_else(|_| seconds())
        .expect("invariant: the seconds come from a timestamp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instant_is_cut() {
        for at in [Timestamp::MIN, Timestamp::MAX, Timestamp::UNIX_EPOCH] {
            assert!(truncate_to_millis(at).subsec_nanosecond() % 1_000_000 == 0);
            assert_eq!(truncate_to_millis(at).as_second(), at.as_second());
        }
    }
}
