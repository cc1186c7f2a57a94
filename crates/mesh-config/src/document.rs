//! A YAML document as a tree of texts with their places.
//!
//! Values keep the text as written instead of the type YAML would guess, so `0770`, `1e5` and `on`
//! mean what the key wants; types come later, from the keys. Aliases and merge keys are resolved.
//! Size, depth and expansion are bounded: the worst text costs a tenth of a second and 40 MB.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, NonFiniteFloatPolicy, SnippetMode, Spanned, UserMessageFormatter};

/// Collections in collections at most; the deepest key needs five.
const DEPTH_MAX: usize = 16;

/// Texts, lists and sections in one document at most: thousands of DNS records fit.
const NODES_MAX: usize = 50_000;

/// Parser events that aliases may repeat; with [`TEXT_BYTES_MAX`], 40 MB are the worst.
const REPEATED_EVENTS_MAX: usize = 10_000;

/// The longest text or name in bytes; the longest sensible one is a database's URL.
const TEXT_BYTES_MAX: usize = 4 * 1024;

/// Aliases in one document at most.
const ALIASES_MAX: usize = 1_000;

/// A place in a file, both counted from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

impl From<Location> for Position {
    fn from(location: Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

/// A value of the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Where it begins; `None` when it does not come from a file.
    pub(crate) position: Option<Position>,
    pub(crate) content: Content,
}

/// What a value is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// `null`, `~` or nothing.
    Null,
    Text(String),
    List(Vec<Node>),
    /// Entries in the order of the file; names are unique.
    Map(Vec<(Name, Node)>),
}

/// The name of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) position: Position,
}

/// Why a text is no document.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) position: Option<Position>,
    pub(crate) message: String,
}

impl Node {
    /// A text that stands in no file.
    pub(crate) fn text(text: &str) -> Self {
        Self { position: None, content: Content::Text(text.to_owned()) }
    }

    /// A document without anything.
    pub(crate) fn nothing() -> Self {
        Self { position: None, content: Content::Null }
    }

    /// The text, if it is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            Content::Null | Content::List(_) | Content::Map(_) => None,
        }
    }

    /// The value at a path such as `derp.server.enabled`, if it is there and not null.
    pub(crate) fn find(&self, path: &str) -> Option<&Self> {
        let found = path.split('.').try_fold(self, |node, segment| {
            let Content::Map(entries) = &node.content else { return None };
            entries.iter().find(|(name, _)| name.text == segment).map(|(_, value)| value)
        })?;
        (found.content != Content::Null).then_some(found)
    }

    /// Reads YAML that stands in no file: a default, or a variable whose value has structure.
    pub(crate) fn from_yaml(text: &str) -> Result<Self, String> {
        let mut node = parse(text).map_err(|error| error.message)?;
        node.forget_positions();
        Ok(node)
    }

    fn forget_positions(&mut self) {
        self.position = None;
        let values: Vec<&mut Self> = match &mut self.content {
            Content::List(elements) => elements.iter_mut().collect(),
            Content::Map(entries) => entries.iter_mut().map(|(_, value)| value).collect(),
            Content::Null | Content::Text(_) => Vec::new(),
        };
        values.into_iter().for_each(Self::forget_positions);
    }
}

/// Reads one YAML document.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 2 * NODES_MAX,
            max_nodes: NODES_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            max_merge_keys: ALIASES_MAX,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: REPEATED_EVENTS_MAX,
        },
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    };
    let raw: Spanned<Raw> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| syntax_error(&error))?;
    with_texts(raw, text)
}

fn syntax_error(error: &serde_saphyr::Error) -> SyntaxError {
    let location = error.location();
    let rendered = error.render_with_options(serde_saphyr::render_options! {
        formatter: &UserMessageFormatter,
        snippets: SnippetMode::Off,
    });
    let place = location
        .map_or(String::new(), |at| format!(" at line {}, column {}", at.line(), at.column()));
    let message = rendered.strip_suffix(&place).unwrap_or(&rendered);
    SyntaxError {
        position: location.map(Position::from),
        message: format!("this is not valid YAML: {message}"),
    }
}

/// A value as the YAML library hands it over.
enum Raw {
    Null,
    /// An unquoted text that YAML takes for a number or a truth value.
    Typed,
    Text(String),
    /// A text above [`TEXT_BYTES_MAX`], not kept, so that aliases do not repeat it.
    TooLong,
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

/// Gives typed values their text back, which stands in `source` where they are defined.
fn with_texts(raw: Spanned<Raw>, source: &str) -> Result<Node, SyntaxError> {
    let position = Position::from(raw.referenced);
    let content = match raw.value {
        Raw::Null => Content::Null,
        Raw::Typed => Content::Text(slice(raw.defined, source).to_owned()),
        Raw::Text(text) => Content::Text(text),
        Raw::TooLong => {
            let message = format!("a text is longer than {TEXT_BYTES_MAX} bytes");
            return Err(SyntaxError { position: Some(position), message });
        }
        Raw::List(elements) => {
            let elements = elements.into_iter().map(|element| with_texts(element, source));
            Content::List(elements.collect::<Result<_, _>>()?)
        }
        Raw::Map(entries) => {
            let entries = entries.into_iter().map(|(name, value)| {
                let name = Name { text: name.value, position: name.referenced.into() };
                Ok((name, with_texts(value, source)?))
            });
            Content::Map(entries.collect::<Result<_, _>>()?)
        }
    };
    Ok(Node { position: Some(position), content })
}

fn slice(location: Location, source: &str) -> &str {
    let span = location.span();
    let range = span.byte_offset().zip(span.byte_len()).and_then(|(start, length)| {
        let start = usize::try_from(start).ok()?;
        Some(start..start.checked_add(usize::try_from(length).ok()?)?)
    });
    range.and_then(|range| source.get(range)).unwrap_or_default().trim()
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a list or a section")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(if text.len() > TEXT_BYTES_MAX { Raw::TooLong } else { Raw::Text(text.to_owned()) })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            elements.push(element);
        }
        Ok(Raw::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<Spanned<String>>()? {
            if name.value.len() > TEXT_BYTES_MAX {
                let message = format_args!("a name is longer than {TEXT_BYTES_MAX} bytes");
                return Err(de::Error::custom(message));
            }
            entries.push((name, map.next_value()?));
        }
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests;
