//! What a key of the configuration is, and the macro that declares a section of them.
//!
//! A section is a struct whose fields say everything about their keys once: type, path, default
//! and the text for operators, which is the doc comment. Everything else is derived from it.

use crate::reader::Reader;

/// One key of the configuration, as its section declares it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// Where it stands in the file, as `derp.server.enabled`.
    pub(crate) path: &'static str,
    /// Other paths under which the same value is accepted; `path` wins over them.
    pub(crate) aliases: &'static [&'static str],
    /// The Rust type of the value, as its section spells it.
    pub(crate) type_name: &'static str,
    /// The default as YAML text; empty quotes or brackets where the key is unset.
    pub(crate) default: &'static str,
    /// Lines of the text for operators.
    pub(crate) doc: &'static [&'static str],
}

impl Key {
    /// All names of the key, the proper one first.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + Clone {
        std::iter::once(self.path).chain(self.aliases.iter().copied())
    }
}

/// A group of keys that is read into one struct.
pub(crate) trait Section: Sized {
    /// All keys below this section, in the order of the example file.
    fn keys() -> Vec<Key>;

    /// Takes every key of the section from the layers; faults go to the reader's report.
    fn read(reader: &mut Reader<'_>) -> Self;
}

/// Declares a section: `pub field: Type = "path", "default as YAML"[, also "alias"];`, then the
/// sections nested in it.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])+
                pub $field:ident: $type:ty = $path:literal, $default:literal $(, also $alias:literal)*;
            )*
        }
        $(sections {
            $(
                $(#[doc = $section_doc:literal])+
                pub $section:ident: $section_type:ty;
            )+
        })?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $type,)*
            $($($(#[doc = $section_doc])+ pub $section: $section_type,)+)?
        }

        impl $crate::key::Section for $name {
            fn keys() -> Vec<$crate::key::Key> {
                [
                    vec![$($crate::key::Key {
                        path: $path,
                        aliases: &[$($alias),*],
                        type_name: stringify!($type),
                        default: $default,
                        doc: &[$($doc),+],
                    }),*],
                    $($(<$section_type as $crate::key::Section>::keys(),)+)?
                ]
                .concat()
            }

            fn read(reader: &mut $crate::reader::Reader<'_>) -> Self {
                Self {
                    $($field: reader.read($path),)*
                    $($($section: $crate::key::Section::read(reader),)+)?
                }
            }
        }
    };
}

pub(crate) use section;
