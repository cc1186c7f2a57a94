//! Instants on the command line.

use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use mesh_config::parse_duration;
use mesh_model::Clock as _;
use serde::{Serialize, Serializer};

use crate::serve::SystemClock;

/// An instant as people give it: `2030-01-31T12:00:00Z`, `30m` from now, or `never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    At(Timestamp),
    In(SignedDuration),
    Never,
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "never" {
            return Ok(Self::Never);
        }
        if let Ok(at) = text.parse() {
            return Ok(Self::At(at));
        }
        let wrong = |error: &dyn std::fmt::Display| {
            format!("{error}; or give an instant such as 2030-01-31T12:00:00Z, or never")
        };
        let span = parse_duration(text).map_err(|error| wrong(&error))?;
        SignedDuration::try_from(span).map(Self::In).map_err(|error| wrong(&error))
    }
}

impl When {
    /// The instant itself; `None` is never.
    pub(crate) fn instant(self) -> Option<Timestamp> {
        match self {
            Self::At(at) => Some(at),
            Self::In(span) => Some(now().checked_add(span).unwrap_or(Timestamp::MAX)),
            Self::Never => None,
        }
    }
}

impl Serialize for When {
    /// As the API takes it: RFC 3339 or null.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.instant().serialize(serializer)
    }
}

/// The time on this machine.
pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_spans_and_never_are_read() {
        assert_eq!("never".parse(), Ok(When::Never));
        assert_eq!("90d".parse(), Ok(When::In(SignedDuration::from_hours(90 * 24))));
        let at = "2030-01-31T12:00:00Z";
        assert_eq!(at.parse(), Ok(When::At(at.parse().unwrap())));
        for wrong in ["", "soon", "10", "2030-01-31", "-1h"] {
            assert!(wrong.parse::<When>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_span_too_long_ends_with_time_itself() {
        assert!("292y".parse::<When>().unwrap().instant().is_some());
    }
}
