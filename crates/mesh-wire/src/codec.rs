//! How every type of this crate reads and writes JSON: one trait for field types, one macro for structs.
//!
//! Go's `encoding/json` and serde's derive differ in four points that clients rely on, so none of the types here
//! derives its codec: keys match without regard to ASCII case, `null` stands for the zero value, a key that comes
//! twice is no error (the last one counts), and a zero value is left out unless the field says `always`.
//! Bodies are bounded by the caller, nesting by `serde_json`'s recursion limit, texts by [`TEXT_BYTES_MAX`], lists
//! that a client can grow by `max` on the field.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use mesh_keys::{ChallengePublic, DiscoPublic, MachinePublic, NetworkLockPublic, NodePublic};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess,
    Visitor,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The limit of a field that names none: the caller's bound on the body is the only one.
pub(crate) const UNBOUNDED: usize = usize::MAX;

/// Longest text of a field, in bytes. Names are tens, SSH host keys hundreds, messages for people some thousands.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;

/// Seconds of Go's zero `time.Time`, `0001-01-01T00:00:00Z`, which stands for "no time".
const ZERO_TIME_SECONDS: i64 = -62_135_596_800;

/// A type that a wire struct may have as a field, as a list element or as a map value.
pub(crate) trait Wire: Serialize + Sized {
    /// Whether Go's `omitempty` or `omitzero` would leave the value out.
    fn is_empty(&self) -> bool;

    /// Reads one value; `None` is "nothing there": `null`, the zero time, an address nobody can use.
    ///
    /// `max` bounds the elements of a list or map; other types ignore it.
    fn read<'de, D: Deserializer<'de>>(from: D, max: usize) -> Result<Option<Self>, D::Error>;

    /// What an entry of a map is whose value is nothing; `None` drops the entry.
    fn null_entry() -> Option<Self> {
        None
    }
}

/// Reads the value of one field: a [`Wire`] type as serde's seed, with the field's limit.
pub(crate) struct Read<T> {
    max: usize,
    value: PhantomData<T>,
}

impl<T> Read<T> {
    pub(crate) const fn up_to(max: usize) -> Self {
        Self { max, value: PhantomData }
    }
}

impl<'de, T: Wire> DeserializeSeed<'de> for Read<T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        T::read(from, self.max)
    }
}

/// What `wire_struct!` generates: the part of decoding that differs from struct to struct.
pub(crate) trait WireStruct: Default {
    /// The struct's name in tailcfg, for error messages.
    const NAME: &'static str;
    /// One variant per field.
    type Key;

    /// The field that a JSON key names, if any.
    fn key(name: &str) -> Option<Self::Key>;

    /// Takes the value that belongs to the key just read.
    fn read_field<'de, A: MapAccess<'de>>(
        &mut self,
        which: Self::Key,
        map: &mut A,
    ) -> Result<(), A::Error>;
}

struct KeySeed<T>(PhantomData<T>);

impl<'de, T: WireStruct> DeserializeSeed<'de> for KeySeed<T> {
    type Value = Option<T::Key>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_identifier(self)
    }
}

impl<T: WireStruct> Visitor<'_> for KeySeed<T> {
    type Value = Option<T::Key>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object key")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(T::key(name))
    }
}

struct StructVisitor<T>(PhantomData<T>);

impl<'de, T: WireStruct> Visitor<'de> for StructVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {} object", T::NAME)
    }

    fn visit_unit<E: de::Error>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut value = T::default();
        while let Some(key) = map.next_key_seed(KeySeed::<T>(PhantomData))? {
            match key {
                Some(key) => value.read_field(key, &mut map)?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(value)
    }
}

/// Reads a struct made by `wire_struct!`; `null` is its default.
pub(crate) fn read_struct<'de, T: WireStruct, D: Deserializer<'de>>(
    from: D,
) -> Result<T, D::Error> {
    from.deserialize_any(StructVisitor(PhantomData))
}

/// Declares a struct as it goes over the wire, with both directions of its JSON.
///
/// A field reads `pub name: Type = "GoName" (rules);`. Without rules it is left out when empty. Rules:
/// `always` writes it in any case, `max N` refuses more than N elements when reading.
macro_rules! wire_struct {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(
                $(#[$field_meta:meta])*
                pub $field:ident: $ty:ty = $wire:literal $(($($rule:tt)*))?;
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)*
        }

        const _: () = {
            #[expect(non_camel_case_types, reason = "variants carry the names of the fields")]
            pub(crate) enum Key {
                $($field,)*
            }

            impl $crate::codec::WireStruct for $name {
                const NAME: &'static str = stringify!($name);
                type Key = Key;

                fn key(name: &str) -> Option<Key> {
                    $(if name.eq_ignore_ascii_case($wire) {
                        return Some(Key::$field);
                    })*
                    None
                }

                fn read_field<'de, A: serde::de::MapAccess<'de>>(
                    &mut self,
                    which: Key,
                    map: &mut A,
                ) -> Result<(), A::Error> {
                    match which {
                        $(Key::$field => {
                            let seed = $crate::codec::Read::<$ty>::up_to(
                                $crate::codec::max_of!($($($rule)*)?),
                            );
                            self.$field = map.next_value_seed(seed)?.unwrap_or_default();
                        })*
                    }
                    Ok(())
                }
            }

            impl<'de> serde::Deserialize<'de> for $name {
                fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                    $crate::codec::read_struct(from)
                }
            }

            impl serde::Serialize for $name {
                fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                    use serde::ser::SerializeMap as _;
                    let mut map = to.serialize_map(None)?;
                    $(if $crate::codec::is_written!(&self.$field; $($($rule)*)?) {
                        map.serialize_entry($wire, &self.$field)?;
                    })*
                    map.end()
                }
            }

            #[cfg(test)]
            impl $crate::codec::sample::Sample for $name {
                fn sample(from: &mut $crate::codec::sample::Source) -> Self {
                    Self { $($field: $crate::codec::sample::Sample::sample(from),)* }
                }
            }

            impl $crate::codec::Wire for $name {
                fn is_empty(&self) -> bool {
                    false
                }

                fn read<'de, D: serde::Deserializer<'de>>(
                    from: D,
                    _max: usize,
                ) -> Result<Option<Self>, D::Error> {
                    <Option<Self> as serde::Deserialize>::deserialize(from)
                }
            }
        };
    };
}

/// The `max N` among a field's rules.
macro_rules! max_of {
    ($(always)?) => {
        $crate::codec::UNBOUNDED
    };
    ($(always,)? max $max:expr) => {
        $max
    };
}

/// Whether a field is written, given its rules.
macro_rules! is_written {
    ($value:expr; always $($rest:tt)*) => {
        true
    };
    ($value:expr; $($rest:tt)*) => {
        !$crate::codec::Wire::is_empty($value)
    };
}

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

pub(crate) use {is_written, leaf, max_of, text, wire_struct};

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

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
