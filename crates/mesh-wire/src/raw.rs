//! JSON that passes through as it was written.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// One JSON value as text. Values of capabilities belong to applications: their numbers and the order of their keys go
/// through untouched.
#[derive(Clone, Debug)]
pub struct RawJson(Box<RawValue>);

impl RawJson {
    /// A value from its text.
    ///
    /// # Errors
    /// The text is not one JSON value.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text).map(Self)
    }

    /// Its text.
    pub fn get(&self) -> &str {
        self.0.get()
    }
}

impl From<serde_json::Value> for RawJson {
    fn from(value: serde_json::Value) -> Self {
        Self(serde_json::value::to_raw_value(&value).expect("invariant: a value is JSON"))
    }
}

impl PartialEq for RawJson {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl crate::codec::Wire for RawJson {
    fn is_empty(&self) -> bool {
        self.get() == "null"
    }

    /// Keeps `null`: among a capability's values it is a value like another.
    fn read<'de, D: serde::Deserializer<'de>>(
        from: D,
        _max: usize,
    ) -> Result<Option<Self>, D::Error> {
        Box::<RawValue>::deserialize(from).map(|value| Some(Self(value)))
    }
}
