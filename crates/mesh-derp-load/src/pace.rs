//! When the packets of an open loop are due.

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// A steady rate since a moment.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// When the first packet is due, in nanoseconds of the run.
    begins_at: u64,
    /// Packets a second of this pace and its siblings together.
    per_second: u64,
    /// How many they are.
    siblings: u64,
    /// Packets that have been taken.
    taken: u64,
}

impl Pace {
    /// The paces of `count` flows that have `per_second` packets all together, evenly shifted against each other.
    pub(crate) fn shared(now: u64, per_second: u64, count: u64) -> impl Iterator<Item = Self> {
        let per_second = per_second.max(1);
        (0..count).map(move |index| {
            let begins_at = now + SECOND * index / per_second;
            Self { begins_at, per_second, siblings: count, taken: 0 }
        })
    }

    /// Takes all packets that are due by `now`.
    pub(crate) fn take(&mut self, now: u64) -> u64 {
        let Some(elapsed) = now.checked_sub(self.begins_at) else { return 0 };
        let periods = u128::from(elapsed) * u128::from(self.per_second)
            / (u128::from(SECOND) * u128::from(self.siblings));
        let due = u64::try_from(periods).unwrap_or(u64::MAX).saturating_add(1);
        let taken = due.saturating_sub(self.taken);
        self.taken += taken;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_paces_together_have_the_rate_however_often_they_are_asked() {
        for step in [7_000, 999_983, 1_000_000_000] {
            let mut paces: Vec<_> = Pace::shared(17, 432_000, 50).collect();
            let mut take_all = |now| paces.iter_mut().map(|pace| pace.take(now)).sum::<u64>();
            let mut taken: u64 = (17..17 + SECOND).step_by(step).map(&mut take_all).sum();
            taken += take_all(17 + SECOND - 1);
            assert!(taken.abs_diff(432_000) <= 50, "{taken} in steps of {step}");
        }
    }

    #[test]
    fn nothing_is_due_before_the_beginning() {
        let mut pace = Pace::shared(1_000, 10, 2).nth(1).unwrap();
        assert_eq!(pace.take(0), 0);
        assert_eq!(pace.take(1_000), 0);
        assert_eq!(pace.take(100_001_000), 1);
        assert_eq!(pace.take(100_001_000), 0);
        assert_eq!(pace.take(300_001_000), 1);
    }
}
