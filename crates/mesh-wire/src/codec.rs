//! How every type of this crate reads and writes JSON: one trait for field types, one macro for structs.
//!
//! Go's `encoding/json` and serde's derive differ in four points that clients rely on, so none of the types here
//! derives its codec: keys match without regard to ASCII case, `null` stands for the zero value, a key that comes
//! twice is no error (the last one counts), and a zero value is left out unless the field says `always`.
//! Bodies are bounded by the caller, nesting by `serde_json`'s recursion limit, the text of a field by
//! [`TEXT_BYTES_MAX`], lists that a client can grow by `max` on the field.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

mod collection;
mod scalar;

pub use scalar::TEXT_BYTES_MAX;
pub(crate) use scalar::{leaf, read_text, text};

/// The limit of a field that names none: the caller's bound on the body is the only one.
pub(crate) const UNBOUNDED: usize = usize::MAX;

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
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {} object or null", T::NAME)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut value = T::default();
        while let Some(key) = map.next_key_seed(KeySeed::<T>(PhantomData))? {
            match key {
                Some(key) => value.read_field(key, &mut map)?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Some(value))
    }
}

/// Reads a struct made by `wire_struct!`, or `null`.
pub(crate) fn read_struct<'de, T: WireStruct, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
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
                    Ok($crate::codec::read_struct(from)?.unwrap_or_default())
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
                    $crate::codec::read_struct(from)
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

pub(crate) use {is_written, max_of, wire_struct};

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
