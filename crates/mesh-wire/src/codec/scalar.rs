//! Field types that hold one value: numbers, truth values and everything that goes as a text.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use mesh_keys::{ChallengePublic, DiscoPublic, MachinePublic, NetworkLockPublic, NodePublic};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use serde_json::Value;

use super::Wire;

/// Longest text of a field, in bytes. Names are tens, SSH host keys hundreds, messages for people some thousands.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Seconds of Go's zero `time.Time`, `0001-01-01T00:00:00Z`, which stands for "no time".
const ZERO_TIME_SECONDS: i64 = -62_135_596_800;

/// Makes serde types into field types: `leaf! { Type, |value| is it empty; }`.
macro_rules! leaf {
    ($($ty:ty, |$value:ident| $empty:expr;)*) => {$(
        impl $crate::codec::Wire for $ty {
            fn is_empty(&self) -> bool {
                let $value = self;
                $empty
            }

            fn read<'de, D: serde::Deserializer<'de>>(
                from: D,
                _max: usize,
            ) -> Result<Option<Self>, D::Error> {
                <Option<Self> as serde::Deserialize>::deserialize(from)
            }
        }
    )*};
}

/// Makes types with a text form into field types: `text! { Type, |text| result, |value| is it empty; }`.
macro_rules! text {
    ($($ty:ty, |$text:ident| $parsed:expr, |$value:ident| $empty:expr;)*) => {$(
        impl $crate::codec::Wire for $ty {
            fn is_empty(&self) -> bool {
                let $value = self;
                $empty
            }

            fn read<'de, D: serde::Deserializer<'de>>(
                from: D,
                _max: usize,
            ) -> Result<Option<Self>, D::Error> {
                $crate::codec::read_text(from, |$text| $parsed)
            }
        }
    )*};
}

pub(crate) use {leaf, text};

leaf! {
    bool, |value| !*value;
    u16, |value| *value == 0;
    u64, |value| *value == 0;
    i32, |value| *value == 0;
    i64, |value| *value == 0;
    f64, |value| *value == 0.0;
}

text! {
    String, |text| Ok::<_, Infallible>(Some(text.to_owned())), |text| text.is_empty();
    Arc<str>, |text| Ok::<_, Infallible>(Some(text.into())), |text| str::is_empty(text);
    IpAddr, |text| present(text), |_address| false;
    IpNet, |text| present(text), |_prefix| false;
    Timestamp, |text| present(text).map(not_zero_time), |_time| false;
    NodePublic, |text| present(text), |key| key.is_zero();
    MachinePublic, |text| present(text), |key| key.is_zero();
    DiscoPublic, |text| present(text), |key| key.is_zero();
    NetworkLockPublic, |text| present(text), |key| key.is_zero();
    ChallengePublic, |text| present(text), |key| key.is_zero();
    // An endpoint that does not parse, such as one with a zone, is of no use to anybody and is passed over.
    SocketAddr, |text| Ok::<_, Infallible>(text.parse().ok()), |_endpoint| false;
}

/// Parses what Go writes as the empty text when it is zero.
fn present<T: FromStr>(text: &str) -> Result<Option<T>, T::Err> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

fn not_zero_time(time: Option<Timestamp>) -> Option<Timestamp> {
    time.filter(|time| time.as_second() != ZERO_TIME_SECONDS)
}

/// Reads a text, or `null`, and makes a value of it without copying the text first.
pub(crate) fn read_text<'de, D, T, E>(
    from: D,
    parse: impl FnOnce(&str) -> Result<Option<T>, E>,
) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    E: fmt::Display,
{
    from.deserialize_any(TextVisitor(parse))
}

struct TextVisitor<F>(F);

impl<T, E: fmt::Display, F: FnOnce(&str) -> Result<Option<T>, E>> Visitor<'_> for TextVisitor<F> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or null")
    }

    fn visit_unit<Error: de::Error>(self) -> Result<Self::Value, Error> {
        Ok(None)
    }

    fn visit_str<Error: de::Error>(self, text: &str) -> Result<Self::Value, Error> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Error::custom(format_args!("text longer than {TEXT_BYTES_MAX} bytes")));
        }
        (self.0)(text).map_err(Error::custom)
    }
}

impl Wire for Value {
    fn is_empty(&self) -> bool {
        self.is_null()
    }

    /// Keeps `null`: among a capability's values it is a value like another.
    fn read<'de, D: Deserializer<'de>>(from: D, _max: usize) -> Result<Option<Self>, D::Error> {
        Self::deserialize(from).map(Some)
    }
}
