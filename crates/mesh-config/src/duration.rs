//! Durations as operators write them: `30m`, `24h`, `7d`, `2w`, `1y`, `1h30m`, `1.5h`.
//!
//! The grammar covers Prometheus' durations and those of Go's `time.ParseDuration` whose units
//! descend, which is what headscale's configuration and command line take.

use std::time::Duration;

use thiserror::Error;

/// A unit and its length; a day is 24 hours, a year 365 days.
const UNITS: &[(&str, u128)] = &[
    ("y", 365 * 24 * 3_600 * NANOS),
    ("w", 7 * 24 * 3_600 * NANOS),
    ("d", 24 * 3_600 * NANOS),
    ("h", 3_600 * NANOS),
    ("m", 60 * NANOS),
    ("s", NANOS),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Nanoseconds in a second.
const NANOS: u128 = 1_000_000_000;

/// The longest duration taken, about 292 years: what Go's durations hold, and small enough to be
/// added to any instant.
const DURATION_MAX_NANOS: u128 = i64::MAX as u128;

/// Digits after a decimal point that are read; a billionth of a year is finer than anyone needs.
const FRACTION_DIGITS_MAX: usize = 9;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DurationError {
    /// Nothing was given.
    #[error("a duration is missing; write it as 30m, 24h or 7d")]
    Empty,
    /// A number was expected where `rest` begins.
    #[error("a number is missing before {rest:?}; write it as 30m, 24h or 7d")]
    NoNumber {
        /// The text from there on.
        rest: String,
    },
    /// A number stands without unit.
    #[error("{number} has no unit; write it as {number}s, {number}m, {number}h or {number}d")]
    NoUnit {
        /// The number as written.
        number: String,
    },
    /// The unit is none of those known.
    #[error("{unit:?} is no unit of time; use y, w, d, h, m, s or ms")]
    UnknownUnit {
        /// The unit as written.
        unit: String,
    },
    /// A unit repeats or follows a smaller one.
    #[error("{unit} stands after a unit that is not larger; write larger units first")]
    Order {
        /// The unit out of order.
        unit: &'static str,
    },
    /// Longer than about 292 years, or a number with too many digits.
    #[error("the duration is too long; at most 292y")]
    TooLong,
}

/// Reads a duration such as `30m`, `24h`, `7d`, `2w`, `1y`, `1h30m` or `1.5h`; a bare `0` is zero.
///
/// Units are y (365 days), w, d, h, m, s, ms, us (µs) and ns, each at most once, larger ones first.
/// The result is at most about 292 years.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = 0;
    let mut rest = text;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let (number, after) = split(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, after) = split(after, char::is_alphabetic);
        if number.is_empty() {
            return Err(DurationError::NoNumber { rest: rest.to_owned() });
        }
        if unit.is_empty() {
            return Err(DurationError::NoUnit { number: number.to_owned() });
        }
        let &(unit, nanos) = known_unit(unit)?;
        if !units.any(|&(larger, _)| larger == unit) {
            return Err(DurationError::Order { unit });
        }
        total += scale(number, nanos)?;
        rest = after;
    }
    u64::try_from(total)
        .ok()
        .filter(|&nanos| u128::from(nanos) <= DURATION_MAX_NANOS)
        .map(Duration::from_nanos)
        .ok_or(DurationError::TooLong)
}

/// Cuts `text` behind its longest prefix of characters that `belongs` takes.
fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

fn known_unit(unit: &str) -> Result<&'static (&'static str, u128), DurationError> {
    let plain = if matches!(unit, "µs" | "μs") { "us" } else { unit };
    UNITS
        .iter()
        .find(|(name, _)| *name == plain)
        .ok_or_else(|| DurationError::UnknownUnit { unit: unit.to_owned() })
}

/// Multiplies a decimal number with a unit; a result above `u64::MAX` is refused, so that sums of
/// the few units cannot overflow.
fn scale(number: &str, nanos: u128) -> Result<u128, DurationError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || number.ends_with('.') {
        return Err(DurationError::NoNumber { rest: number.to_owned() });
    }
    let whole: u64 = whole.parse().map_err(|_| DurationError::TooLong)?;
    if fraction.len() > FRACTION_DIGITS_MAX {
        return Err(DurationError::TooLong);
    }
    let fraction: u64 = format!("{fraction:0<FRACTION_DIGITS_MAX$}")
        .parse()
        .map_err(|_| DurationError::NoNumber { rest: number.to_owned() })?;
    let sum = u128::from(whole) * nanos + u128::from(fraction) * nanos / NANOS;
    if sum > DURATION_MAX_NANOS { Err(DurationError::TooLong) } else { Ok(sum) }
}

#[cfg(test)]
mod tests;
