//! What is wrong with a policy, all of it at once, for people and for programs.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use serde::Serialize;

/// How many problems are kept in full; of the rest only the number is told.
pub const PROBLEMS_MAX: usize = 100;

/// How many bytes of a text are quoted in a message.
const QUOTED_BYTES_MAX: usize = 256;

/// Names longer than this are not compared for suggestions, for comparing takes time by the square.
const NAME_BYTES_MAX: usize = 64;

/// How many names are compared for one suggestion.
const CANDIDATES_MAX: usize = 2_000;

/// One thing that is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Line in the text, from 1.
    pub line: u32,
    /// Column in the line, in characters from 1.
    pub column: u32,
    /// The field, such as `acls[3].dst[0]`; empty where the text as a whole is meant.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What may have been meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

/// As in `policy:12:14: acls[3].dst[0]: dst="tag:wbe": tag not found: "tag:wbe" (did you mean "tag:web"?)`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy:{}:{}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " (did you mean {}?)", quoted(suggestion)),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a policy, in the order of the text; never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problems {
    /// The first [`PROBLEMS_MAX`] that were found.
    pub problems: Vec<Problem>,
    /// How many were found beyond these.
    pub more: usize,
}

/// One problem a line.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_char('\n')?;
            }
            write!(f, "{problem}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for Problems {}

/// What is wrong, before it is known where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) message: Cow<'static, str>,
    pub(crate) suggestion: Option<String>,
}

impl<T: Into<Cow<'static, str>>> From<T> for Refusal {
    fn from(message: T) -> Self {
        Self { message: message.into(), suggestion: None }
    }
}

/// Problems while they are being found, with offsets for positions.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    found: Vec<(usize, String, Refusal)>,
    more: usize,
}

impl Collector {
    /// Whether another problem would be kept.
    pub(crate) fn has_room(&self) -> bool {
        self.found.len() < PROBLEMS_MAX
    }

    /// Whether nothing was found.
    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Counts a problem that is not kept.
    pub(crate) fn count(&mut self) {
        self.more += 1;
    }

    /// Keeps a problem.
    pub(crate) fn push(&mut self, offset: usize, path: String, refusal: Refusal) {
        self.found.push((offset, path, refusal));
    }

    /// The problems with lines and columns of the text, in its order.
    pub(crate) fn finish(mut self, text: &str) -> Problems {
        self.found.sort_by_key(|(offset, ..)| *offset);
        let mut position = Position::default();
        let problems = self.found.into_iter().map(|(offset, path, refusal)| {
            position.advance(text, offset);
            Problem {
                line: position.line + 1,
                column: position.column + 1,
                path,
                message: refusal.message.into_owned(),
                suggestion: refusal.suggestion,
            }
        });
        Problems { problems: problems.collect(), more: self.more }
    }
}

/// A place in a text; lines and columns count from 0.
#[derive(Debug, Clone, Copy, Default)]
struct Position {
    offset: usize,
    line: u32,
    column: u32,
}

impl Position {
    fn advance(&mut self, text: &str, offset: usize) {
        for character in text[self.offset..offset].chars() {
            match character {
                '\n' => {
                    self.line += 1;
                    self.column = 0;
                }
                '\u{feff}' => {}
                _ => self.column += 1,
            }
        }
        self.offset = offset;
    }
}

/// A text in quotes as Go's `%q` writes it, cut where it is very long.
///
/// The messages of the service are made with it.
pub(crate) fn quoted(text: &str) -> String {
    let end = text.floor_char_boundary(QUOTED_BYTES_MAX);
    let mut out = String::with_capacity(end + 2);
    out.push('"');
    for character in text[..end].chars() {
        push_escaped(&mut out, character);
    }
    if end < text.len() {
        out.push('…');
    }
    out.push('"');
    out
}

fn push_escaped(out: &mut String, character: char) {
    let simple = match character {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\u{7}' => "\\a",
        '\u{8}' => "\\b",
        '\u{c}' => "\\f",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\u{b}' => "\\v",
        _ => {
            push_unicode(out, character);
            return;
        }
    };
    out.push_str(simple);
}

fn push_unicode(out: &mut String, character: char) {
    let code = u32::from(character);
    // A writer into a string cannot fail.
    let _ = match character {
        '\'' => out.write_char(character),
        _ if is_printable(character) => out.write_char(character),
        _ if code < 0x80 => write!(out, "\\x{code:02x}"),
        _ if code < 0x1_0000 => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
}

/// Whether a character shows, also as part of another: the standard library tells in how it writes texts.
fn is_printable(character: char) -> bool {
    let mut bytes = [0; 5];
    bytes[0] = b'x';
    let length = character.encode_utf8(&mut bytes[1..]).len();
    let text = str::from_utf8(&bytes[..=length]).unwrap_or_default();
    text.escape_debug().nth(1) == Some(character)
}

/// The name among candidates that comes nearest to one that is wrong, if any is near.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let far = (name.len() / 3).clamp(1, 3) + 1;
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let near = candidates
        .into_iter()
        .take(CANDIDATES_MAX)
        .filter(|candidate| candidate.len().abs_diff(name.len()) < far)
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance < far && *candidate != name);
    near.min().map(|(_, candidate)| candidate.to_owned())
}

#[cfg(test)]
mod tests;
