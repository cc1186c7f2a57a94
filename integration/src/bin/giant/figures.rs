//! What came out, as a row of a table.

use std::fmt;
use std::time::Duration;

use mesh_integration::Usage;

use crate::viewer::WholeMap;

/// What came out for one size and engine.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) start: Duration,
    pub(crate) after_start: Usage,
    pub(crate) first_map: WholeMap,
    pub(crate) second_map: WholeMap,
    pub(crate) steps: Steps,
    pub(crate) channel: Duration,
    pub(crate) at_end: Usage,
    pub(crate) stock: Option<Stock>,
}

/// What some steps cost and how long they took.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    pub(crate) count: u32,
    /// Processor time of the server for all of them.
    pub(crate) processor: Duration,
    pub(crate) joins: Vec<Duration>,
    pub(crate) deliveries: Vec<Duration>,
}

/// What a stock client made of its steps.
#[derive(Debug)]
pub(crate) struct Stock {
    /// Until it had taken in its first map.
    pub(crate) up: Duration,
    pub(crate) steps: u32,
    pub(crate) in_place: i64,
    pub(crate) rebuilt: i64,
}

impl Figures {
    /// The head of the table whose rows figures are, behind engine and size.
    pub(crate) const HEAD: &str = "\
| engine | nodes | start s | RSS MB, peak | whole map ms, again | its MB, as JSON | step CPU us, of it handshake | \
join ms p50, p99 | delivery ms p50, p99 | stock: first map s | stock: steps, in place, rebuilt |
|---|---|---|---|---|---|---|---|---|---|---|";
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, after_start, first_map, second_map, steps, channel, at_end, stock } =
            self;
        write!(f, "{:.2} | ", start.as_secs_f64())?;
        let (now, peak) = (after_start.resident_bytes, at_end.resident_bytes_peak);
        write!(f, "{}, {} | ", megabytes(now), megabytes(peak))?;
        write!(f, "{}, {} | ", first_map.took.as_millis(), second_map.took.as_millis())?;
        let (wire, json) = (first_map.wire_bytes as u64, first_map.json_bytes as u64);
        write!(f, "{}, {} | ", megabytes(wire), megabytes(json))?;
        let step = steps.processor / steps.count.max(1);
        write!(f, "{}, {} | ", step.as_micros(), channel.as_micros())?;
        write!(f, "{} | {} | ", Spread::of(&steps.joins), Spread::of(&steps.deliveries))?;
        match stock {
            None => f.write_str("- | -"),
            Some(Stock { up, steps, in_place, rebuilt }) => {
                write!(f, "{:.1} | {steps}, {in_place}, {rebuilt}", up.as_secs_f64())
            }
        }
    }
}

fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

/// Median and 99th percentile of some durations, in milliseconds.
struct Spread {
    p50: f64,
    p99: f64,
}

impl Spread {
    fn of(durations: &[Duration]) -> Self {
        let mut sorted = durations.to_vec();
        sorted.sort();
        let at = |percent: usize| {
            let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
            sorted.get(place).map_or(0.0, |duration| duration.as_secs_f64() * 1e3)
        };
        Self { p50: at(50), p99: at(99) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}, {:.1}", self.p50, self.p99)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(milliseconds: impl Iterator<Item = u64>, told: &str) {
        let durations: Vec<_> = milliseconds.map(Duration::from_millis).collect();
        assert_eq!(Spread::of(&durations).to_string(), told);
    }

    #[test]
    fn a_spread_is_the_median_and_nearly_the_worst() {
        check((1..=200).rev(), "101.0, 199.0");
        check(7..8, "7.0, 7.0");
        check(0..0, "0.0, 0.0");
    }
}
