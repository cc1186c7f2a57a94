//! How long things took.

use hdrhistogram::Histogram;

/// Longest span that is told from longer ones, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// Significant digits that are kept.
const DIGITS: u8 = 2;

/// Spans of time, by their distribution.
#[derive(Debug)]
pub(crate) struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_max(LONGEST, DIGITS).expect("invariant: bounds of a histogram"))
    }
}

impl Latency {
    /// Adds a span in nanoseconds.
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds);
    }

    /// The span in milliseconds that this share of all does not exceed; `None` if there are none.
    pub(crate) fn quantile_ms(&self, share: f64) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(share) as f64 / 1e6)
    }

    /// Forgets all spans.
    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_hundredth() {
        let mut latency = Latency::default();
        assert_eq!(latency.quantile_ms(0.5), None);
        for microseconds in 1..=1_000 {
            latency.record(microseconds * 1_000);
        }
        for (share, expected) in [(0.5, 0.5), (0.99, 0.99), (1.0, 1.0)] {
            let told = latency.quantile_ms(share).unwrap();
            assert!((told - expected).abs() <= expected / 100.0, "{share}: {told}");
        }
        latency.clear();
        assert_eq!(latency.quantile_ms(0.5), None);
    }

    #[test]
    fn what_is_too_long_counts_as_the_longest() {
        let mut latency = Latency::default();
        latency.record(u64::MAX);
        assert!(latency.quantile_ms(1.0).unwrap() >= 60_000.0);
    }
}
