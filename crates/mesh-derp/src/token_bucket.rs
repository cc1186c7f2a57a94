//! A token bucket: evenly so much a second, and some of it in one go.

use std::time::{Duration, Instant};

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// How much of something may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that come in each second. Zero counts as one.
    pub per_second: u64,
    /// Tokens that a full bucket holds.
    pub burst: u64,
}

impl Rate {
    /// How long so many tokens take to come in, rounded up.
    fn time_of(self, tokens: u128) -> Duration {
        let nanos = (tokens * NANOS_PER_SECOND).div_ceil(self.per_second.max(1).into());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// A bucket that fills by time, at most to its brim. It is full at the start.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate: Rate,
    /// When nothing will be missing from it; what is missing until then comes in evenly.
    full_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    /// What fills it.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Fills it at another rate from here on. What was used, or is owed, stays so.
    pub fn set_rate(&mut self, rate: Rate, now: Instant) {
        let left = i128::from(self.rate.burst) - self.missing(now);
        let missing = i128::from(rate.burst) - left.min(rate.burst.into());
        self.full_at = now + rate.time_of(missing.unsigned_abs());
        self.rate = rate;
    }

    /// Takes tokens that were used already, there or not: [`Self::wait`] says how long the next use has to wait then.
    pub fn take(&mut self, tokens: u64, now: Instant) {
        self.full_at = self.full_at.max(now) + self.rate.time_of(tokens.into());
    }

    /// Takes tokens if all of them are there.
    pub fn try_take(&mut self, tokens: u64, now: Instant) -> bool {
        let mut after = self.clone();
        after.take(tokens, now);
        let is_there = after.wait(now).is_zero();
        if is_there {
            *self = after;
        }
        is_there
    }

    /// How long it takes until nothing is owed.
    pub fn wait(&self, now: Instant) -> Duration {
        let until_full = self.full_at.saturating_duration_since(now);
        until_full.saturating_sub(self.rate.time_of(self.rate.burst.into()))
    }

    /// Tokens that are not there, rounded up.
    fn missing(&self, now: Instant) -> i128 {
        let nanos = self.full_at.saturating_duration_since(now).as_nanos();
        let missing = (nanos * u128::from(self.rate.per_second.max(1))).div_ceil(NANOS_PER_SECOND);
        i128::try_from(missing).unwrap_or(i128::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Counts billionths of tokens.
    struct Naive {
        rate: Rate,
        left: i128,
        now: Instant,
    }

    impl Naive {
        fn go_on(&mut self, now: Instant) {
            let passed = i128::try_from((now - self.now).as_nanos()).expect("a short while");
            self.left += passed * i128::from(self.rate.per_second);
            self.left = self.left.min(self.brim());
            self.now = now;
        }

        fn brim(&self) -> i128 {
            i128::from(self.rate.burst) * 1_000_000_000
        }

        fn set_rate(&mut self, rate: Rate) {
            self.left = self.left.div_euclid(1_000_000_000) * 1_000_000_000;
            self.rate = rate;
            self.left = self.left.min(self.brim());
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take(u64),
        TryTake(u64),
        SetRate(Rate),
    }

    /// Rates whose tokens come in at whole nanoseconds, so that nothing is rounded.
    fn rates() -> impl Strategy<Value = Rate> {
        (0..10_u32, 0..200_000_u64)
            .prop_map(|(power, burst)| Rate { per_second: 10_u64.pow(power), burst })
    }

    fn steps() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..100_000_u64).prop_map(Step::Take),
            (0..100_000_u64).prop_map(Step::TryTake),
            rates().prop_map(Step::SetRate),
        ]
    }

    proptest! {
        #[test]
        fn it_gives_what_one_that_counts_would_give(
            rate in rates(),
            steps in vec((0..10_u32, 0..2000_u64, steps()), 0..50),
        ) {
            let mut now = Instant::now();
            let mut bucket = TokenBucket::new(rate, now);
            let mut naive = Naive { rate, left: i128::from(rate.burst) * 1_000_000_000, now };
            for (power, pause, step) in steps {
                now += Duration::from_nanos(pause * 10_u64.pow(power));
                naive.go_on(now);
                match step {
                    Step::Take(tokens) => {
                        bucket.take(tokens, now);
                        naive.left -= i128::from(tokens) * 1_000_000_000;
                    }
                    Step::TryTake(tokens) => {
                        let wanted = i128::from(tokens) * 1_000_000_000;
                        prop_assert_eq!(bucket.try_take(tokens, now), wanted <= naive.left);
                        if wanted <= naive.left {
                            naive.left -= wanted;
                        }
                    }
                    Step::SetRate(rate) => {
                        bucket.set_rate(rate, now);
                        naive.set_rate(rate);
                    }
                }
                let owed = (-naive.left).max(0).unsigned_abs();
                let wait = owed.div_ceil(naive.rate.per_second.into());
                prop_assert_eq!(bucket.wait(now).as_nanos(), wait);
            }
        }
    }

    #[test]
    fn absurd_numbers_are_borne() {
        let now = Instant::now();
        for rate in
            [Rate { per_second: 0, burst: u64::MAX }, Rate { per_second: u64::MAX, burst: 0 }]
        {
            let mut bucket = TokenBucket::new(rate, now);
            bucket.take(u64::MAX, now);
            bucket.set_rate(Rate { per_second: 0, burst: 0 }, now);
            assert!(!bucket.try_take(1, now));
        }
    }
}
