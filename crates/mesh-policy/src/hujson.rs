//! Reads HuJSON (JSON with comments and trailing commas) as a stream, straight from the text.
//!
//! [`Reader`] is pulled by whoever knows what should come: it builds no tree, borrows texts without escapes, and
//! holds nothing but the containers that are open. Apart from `//` and `/* */` comments and a comma after the last
//! member it is as strict as RFC 8259. The first syntax error ends the reading.

#![expect(clippy::unnecessary_box_returns, reason = "results of small steps stay in registers")]

use std::borrow::Cow;

mod refusal;

/// How deep objects and lists may nest. No policy needs ten; the bound keeps hostile text off the stack.
pub(crate) const DEPTH_MAX: usize = 64;

/// Why a text is not HuJSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// Where, in bytes from the start.
    pub(crate) offset: usize,
    /// What is wrong, and where it helps, how it is written right.
    pub(crate) message: String,
}

impl SyntaxError {
    #[cold]
    fn new(offset: usize, message: &str) -> Box<Self> {
        Box::new(Self { offset, message: message.to_owned() })
    }
}

/// What reading yields. The error is boxed to keep the results of the many small steps in registers.
pub(crate) type Read<T> = Result<T, Box<SyntaxError>>;

/// What kind of value begins at the reader's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `{`.
    Object,
    /// `[`.
    List,
    /// `"`.
    Text,
    /// A digit or `-`.
    Number,
    /// `true` or `false`.
    Bool,
    /// `null`.
    Null,
}

impl Kind {
    /// The kind in words, with its article.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::List => "a list",
            Self::Text => "a text",
            Self::Number => "a number",
            Self::Bool => "true or false",
            Self::Null => "null",
        }
    }
}

/// A container whose end has not been read.
#[derive(Debug, Clone, Copy)]
struct Open {
    close: u8,
    is_fresh: bool,
}

/// A position in HuJSON text, moved on value by value.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    token: usize,
    open: Vec<Open>,
}

impl<'a> Reader<'a> {
    /// Begins at the start of a text; a byte order mark is passed over.
    pub(crate) fn new(text: &'a str) -> Self {
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { text, at, token: at, open: Vec::new() }
    }

    /// Begins at a value that an earlier reading of the same text has found at an offset, a member of the outermost
    /// object.
    pub(crate) fn at_value(text: &'a str, offset: usize) -> Self {
        let outermost = Open { close: b'}', is_fresh: false };
        Self { text, at: offset, token: offset, open: vec![outermost] }
    }

    /// An error unless the reader stands at an offset.
    pub(crate) fn has_come_to(&self, offset: usize) -> Read<()> {
        if self.at == offset { Ok(()) } else { Err(self.error("a bracket does not match")) }
    }

    /// Where the reader stands, in bytes from the start.
    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    /// Where the value or name that was looked at last begins, in bytes from the start.
    pub(crate) fn token(&self) -> usize {
        self.token
    }

    /// Tells what kind of value comes next.
    #[inline]
    pub(crate) fn kind(&mut self) -> Read<Kind> {
        self.skip_space()?;
        self.token = self.at;
        match self.peek() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::List),
            Some(b'"') => Ok(Kind::Text),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(_) | None => Err(self.no_value()),
        }
    }

    /// Enters the object that comes next.
    pub(crate) fn begin_object(&mut self) -> Read<()> {
        self.begin(b'{', b'}')
    }

    /// The next member's name in the object that is open; its value has to be read then. None at the end.
    pub(crate) fn next_member(&mut self) -> Read<Option<Cow<'a, str>>> {
        if !self.has_next()? {
            return Ok(None);
        }
        self.token = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.no_name());
        }
        let name = self.text()?;
        self.colon()?;
        Ok(Some(name))
    }

    /// Enters the list that comes next.
    pub(crate) fn begin_list(&mut self) -> Read<()> {
        self.begin(b'[', b']')
    }

    /// Whether the open list has another element, which has to be read then.
    pub(crate) fn next_element(&mut self) -> Read<bool> {
        self.has_next()
    }

    /// How many elements the open list has still, the next one included.
    pub(crate) fn count_elements(&self) -> Read<usize> {
        let mut ahead = self.clone();
        let mut count = 0;
        while ahead.next_element()? {
            ahead.skip()?;
            count += 1;
        }
        Ok(count)
    }

    /// Reads the text that comes next.
    pub(crate) fn text(&mut self) -> Read<Cow<'a, str>> {
        let start = self.at + 1;
        self.at = start;
        self.pass_plain();
        if self.peek() == Some(b'"') {
            let plain = &self.text[start..self.at];
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut unescaped = String::from(&self.text[start..self.at]);
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(unescaped));
                }
                Some(b'\\') => unescaped.push(self.escape()?),
                Some(_) | None => return Err(self.broken_text(start)),
            }
            let plain = self.at;
            self.pass_plain();
            unescaped.push_str(&self.text[plain..self.at]);
        }
    }

    /// Reads the `true` or `false` that comes next.
    pub(crate) fn flag(&mut self) -> Read<bool> {
        let is_true = self.peek() == Some(b't');
        self.word(if is_true { "true" } else { "false" })?;
        Ok(is_true)
    }

    /// Passes over the value that comes next, checking it.
    pub(crate) fn skip(&mut self) -> Read<()> {
        match self.kind()? {
            Kind::Object => {
                self.begin_object()?;
                while self.has_next()? {
                    self.skip_name()?;
                    self.skip()?;
                }
                Ok(())
            }
            Kind::List => {
                self.begin_list()?;
                while self.next_element()? {
                    self.skip()?;
                }
                Ok(())
            }
            Kind::Text => self.skip_text(),
            Kind::Number => self.number(),
            Kind::Bool => self.flag().map(drop),
            Kind::Null => self.word("null"),
        }
    }

    /// Passes over the object or list that comes next, going by brackets, quotes and comments alone: whoever reads it
    /// checks it. One that is right ends where [`Self::skip`] ends, one that is wrong ends somewhere.
    pub(crate) fn leap(&mut self) {
        let bytes = self.text.as_bytes();
        let mut at = self.at;
        let mut depth = 0_usize;
        while let Some(byte) = bytes.get(at) {
            at += 1;
            match byte {
                b'"' => at = text_end(bytes, at),
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                b'/' => at = at.max(at - 1 + comment_length(&self.text[at - 1..])),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        self.at = at;
    }

    /// Appends the value that comes next as compact JSON: no comments, no white space, no trailing commas; numbers
    /// and texts as written.
    pub(crate) fn compact(&mut self, out: &mut String) -> Read<()> {
        let kind = self.kind()?;
        if !matches!(kind, Kind::Object | Kind::List) {
            self.skip()?;
            out.push_str(&self.text[self.token..self.at]);
            return Ok(());
        }
        let (open, close) = if kind == Kind::Object { ('{', '}') } else { ('[', ']') };
        self.begin(open as u8, close as u8)?;
        out.push(open);
        let empty = out.len();
        while self.has_next()? {
            if out.len() > empty {
                out.push(',');
            }
            if kind == Kind::Object {
                self.compact_name(out)?;
            }
            self.compact(out)?;
        }
        out.push(close);
        Ok(())
    }

    fn skip_text(&mut self) -> Read<()> {
        let start = self.at + 1;
        self.at = start;
        loop {
            self.pass_plain();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => drop(self.escape()?),
                Some(_) | None => return Err(self.broken_text(start)),
            }
        }
    }

    /// Passes over a name and its colon.
    fn skip_name(&mut self) -> Read<()> {
        self.token = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.no_name());
        }
        self.skip_text()?;
        self.colon()
    }

    fn colon(&mut self) -> Read<()> {
        self.skip_space()?;
        if self.peek() != Some(b':') {
            return Err(self.error("a `:` is expected between a name and its value"));
        }
        self.at += 1;
        Ok(())
    }

    fn compact_name(&mut self, out: &mut String) -> Read<()> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.no_name());
        }
        self.skip_text()?;
        out.push_str(&self.text[start..self.at]);
        out.push(':');
        self.colon()?;
        Ok(())
    }

    /// Checks that nothing but comments follows.
    pub(crate) fn end(&mut self) -> Read<()> {
        self.skip_space()?;
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error("there is something after the end of the value")),
        }
    }

    fn begin(&mut self, open: u8, close: u8) -> Read<()> {
        debug_assert_eq!(self.peek(), Some(open));
        if self.open.len() == DEPTH_MAX {
            return Err(self.error("objects and lists nest deeper than 64"));
        }
        self.at += 1;
        self.open.push(Open { close, is_fresh: true });
        Ok(())
    }

    /// Steps to the next entry of the innermost container, or out of it.
    #[inline]
    fn has_next(&mut self) -> Read<bool> {
        self.skip_space()?;
        let Some(open) = self.open.last_mut() else { return Ok(false) };
        let close = open.close;
        let is_fresh = std::mem::take(&mut open.is_fresh);
        let found = self.text.as_bytes().get(self.at).copied();
        if !is_fresh && found == Some(b',') {
            self.at += 1;
            self.skip_space()?;
        } else if !is_fresh && found != Some(close) {
            return Err(self.no_comma(close));
        }
        if self.peek() == Some(close) {
            self.at += 1;
            self.open.pop();
            return Ok(false);
        }
        if self.at == self.text.len() {
            return Err(self.no_comma(close));
        }
        Ok(true)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes over what a text may hold as it is.
    fn pass_plain(&mut self) {
        self.at = plain_end(self.text.as_bytes(), self.at);
    }

    /// Reads an escape, from its backslash on.
    fn escape(&mut self) -> Read<char> {
        let start = self.at;
        let wrong = |message: &str| SyntaxError::new(start, message);
        self.at += 1;
        let byte = self.peek();
        self.at += 1;
        Ok(match byte {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(start),
            Some(_) | None => {
                return Err(wrong(
                    "a backslash begins an escape, and there is none like this; write `\\\\` for a backslash",
                ));
            }
        })
    }

    /// Reads the digits of `\uXXXX`, and of the second half if it is the first of a surrogate pair.
    fn unicode_escape(&mut self, start: usize) -> Read<char> {
        let wrong = |message: &str| SyntaxError::new(start, message);
        let digits = "`\\u` is followed by four hexadecimal digits";
        let first = self.hex().ok_or_else(|| wrong(digits))?;
        let mut code = first;
        if (0xd800..0xdc00).contains(&first) && self.text[self.at..].starts_with("\\u") {
            self.at += 2;
            let second = self.hex().ok_or_else(|| wrong(digits))?;
            if (0xdc00..0xe000).contains(&second) {
                code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            }
        }
        char::from_u32(code).ok_or_else(|| wrong("half of a surrogate pair stands alone"))
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        self.at += 4;
        is_hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    }

    /// Passes over a number: `-`, digits without leading zero, fraction, exponent.
    fn number(&mut self) -> Read<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let has_leading_zero = self.peek() == Some(b'0');
        let digits = self.digits()?;
        if has_leading_zero && digits > 1 {
            return Err(self.error_at_token("a number has no leading zero"));
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        self.end_of_word()
    }

    fn digits(&mut self) -> Read<usize> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start {
            return Err(self.error("a digit is expected here"));
        }
        Ok(self.at - start)
    }

    fn word(&mut self, word: &str) -> Read<()> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.no_value());
        }
        self.at += word.len();
        self.end_of_word()
    }

    fn end_of_word(&self) -> Read<()> {
        match self.peek() {
            Some(byte) if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.' => {
                Err(self.error_at_token("this is no value; a text stands in double quotes"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Passes over white space and comments.
    #[inline]
    fn skip_space(&mut self) -> Read<()> {
        if self.peek() == Some(b' ') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'/' | 0..=b' ') => self.skip_spaces(),
            Some(_) | None => Ok(()),
        }
    }

    fn skip_spaces(&mut self) -> Read<()> {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                Some(b'/') => self.comment()?,
                Some(_) | None => return Ok(()),
            }
        }
    }

    fn comment(&mut self) -> Read<()> {
        let rest = &self.text[self.at..];
        if rest.starts_with("//") {
            self.at += rest.find('\n').unwrap_or(rest.len());
        } else if let Some(inside) = rest.strip_prefix("/*") {
            match inside.find("*/") {
                Some(length) => self.at += length + 4,
                None => return Err(self.error("this comment has no end: `*/` is missing")),
            }
        } else {
            return Err(self.error("a comment begins with `//` or `/*`"));
        }
        Ok(())
    }
}

/// Where what a text may hold as it is ends.
#[inline]
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let special = special_bytes(u64::from_le_bytes(*eight));
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += eight.len();
    }
    let rest = &bytes[at..];
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..b' ');
    at + rest.iter().position(is_special).unwrap_or(rest.len())
}

/// Where a text ends, its closing quote included, from behind its opening one; what is in it is not judged.
fn text_end(bytes: &[u8], mut at: usize) -> usize {
    loop {
        at = plain_end(bytes, at);
        match bytes.get(at) {
            None => return bytes.len(),
            Some(b'"') => return at + 1,
            Some(b'\\') => at = bytes.len().min(at + 2),
            Some(_) => at += 1,
        }
    }
}

/// How many bytes the comment has that a text begins with, the end of its line not counted; 0 if it begins with none.
pub(crate) fn comment_length(text: &str) -> usize {
    if text.starts_with("//") {
        text.find('\n').unwrap_or(text.len())
    } else if let Some(inside) = text.strip_prefix("/*") {
        inside.find("*/").map_or(text.len(), |length| length + 4)
    } else {
        0
    }
}

/// The top bit of each of eight bytes that is a quote, a backslash or a control character. Bytes above the lowest
/// such one may be marked wrongly.
fn special_bytes(eight: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const TOPS: u64 = ONES << 7;
    let below = |limit: u8, bytes: u64| bytes.wrapping_sub(ONES * u64::from(limit)) & !bytes;
    let is = |byte: u8| below(1, eight ^ (ONES * u64::from(byte)));
    (below(b' ', eight) | is(b'"') | is(b'\\')) & TOPS
}

#[cfg(test)]
mod tests;
