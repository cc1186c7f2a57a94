//! Field types that hold other values: options, boxes, lists and maps.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::{Read, UNBOUNDED, Wire};

impl<T: Wire> Wire for Option<T> {
    fn is_empty(&self) -> bool {
        self.is_none()
    }

    fn read<'de, D: Deserializer<'de>>(from: D, max: usize) -> Result<Option<Self>, D::Error> {
        T::read(from, max).map(Some)
    }
}

impl<T: Wire> Wire for Box<T> {
    fn is_empty(&self) -> bool {
        T::is_empty(self)
    }

    fn read<'de, D: Deserializer<'de>>(from: D, max: usize) -> Result<Option<Self>, D::Error> {
        Ok(T::read(from, max)?.map(Self::new))
    }
}

impl<T: Wire> Wire for Arc<T> {
    fn is_empty(&self) -> bool {
        T::is_empty(self)
    }

    fn read<'de, D: Deserializer<'de>>(from: D, max: usize) -> Result<Option<Self>, D::Error> {
        Ok(T::read(from, max)?.map(Self::new))
    }
}

impl<T: Wire> Wire for Arc<[T]> {
    fn is_empty(&self) -> bool {
        <[T]>::is_empty(self)
    }

    fn read<'de, D: Deserializer<'de>>(from: D, max: usize) -> Result<Option<Self>, D::Error> {
        Ok(Vec::read(from, max)?.map(Self::from))
    }
}

/// Reads a list or map, or `null`, of at most `max` elements.
struct Elements<T> {
    max: usize,
    value: PhantomData<T>,
}

impl<T> Elements<T> {
    fn read<'de, D: Deserializer<'de>>(from: D, max: usize) -> Result<Option<T>, D::Error>
    where
        Self: Visitor<'de, Value = Option<T>>,
    {
        from.deserialize_any(Self { max, value: PhantomData })
    }

    fn check<E: de::Error>(&self, count: usize) -> Result<(), E> {
        if count > self.max {
            return Err(E::custom(format_args!("more than {} elements", self.max)));
        }
        Ok(())
    }
}

impl<'de, T: Wire> Visitor<'de> for Elements<Vec<T>> {
    type Value = Option<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or null")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        let mut seen = 0;
        while let Some(element) = seq.next_element_seed(Read::up_to(UNBOUNDED))? {
            seen += 1;
            self.check(seen)?;
            list.extend(element);
        }
        Ok(Some(list))
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    /// Elements that are nothing (`null`, an unusable endpoint) are passed over.
    fn read<'de, D: Deserializer<'de>>(from: D, max: usize) -> Result<Option<Self>, D::Error> {
        Elements::read(from, max)
    }

    /// The empty list, as in a DNS route without name servers.
    fn null_entry() -> Option<Self> {
        Some(Self::new())
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Wire> Visitor<'de> for Elements<BTreeMap<K, V>> {
    type Value = Option<BTreeMap<K, V>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or null")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        let mut seen = 0;
        while let Some(key) = access.next_key()? {
            seen += 1;
            self.check(seen)?;
            let value = access.next_value_seed(Read::up_to(UNBOUNDED))?;
            if let Some(value) = value.or_else(V::null_entry) {
                map.insert(key, value);
            }
        }
        Ok(Some(map))
    }
}

impl<K: DeserializeOwned + Serialize + Ord, V: Wire> Wire for BTreeMap<K, V> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    /// Entries whose value is nothing are passed over, unless it is an `Option` or a list.
    fn read<'de, D: Deserializer<'de>>(from: D, max: usize) -> Result<Option<Self>, D::Error> {
        Elements::read(from, max)
    }
}
