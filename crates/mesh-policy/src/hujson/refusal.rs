//! What is said of a text that is not HuJSON.

use super::{Reader, SyntaxError};

impl Reader<'_> {
    pub(super) fn error(&self, message: &str) -> Box<SyntaxError> {
        SyntaxError::new(self.at, message)
    }

    pub(super) fn error_at_token(&self, message: &str) -> Box<SyntaxError> {
        SyntaxError::new(self.token, message)
    }

    pub(super) fn broken_text(&self, start: usize) -> Box<SyntaxError> {
        match self.peek() {
            None | Some(b'\n' | b'\r') => {
                let message = "this text has no end: the closing `\"` is missing on its line";
                SyntaxError::new(start - 1, message)
            }
            Some(byte) => self.error(&format!(
                "a control character in a text is written as an escape: `\\u{byte:04x}`"
            )),
        }
    }

    pub(super) fn no_value(&self) -> Box<SyntaxError> {
        self.error(match self.peek() {
            None => "the text ends where a value is expected",
            Some(b'\'') => "a text stands in double quotes, not in single ones",
            Some(b'#') => "a comment begins with `//`, not with `#`",
            Some(b',') => "a value is expected before this comma",
            Some(b'}' | b']') => "a value is expected before this bracket",
            Some(b'+') => "a number has no plus sign",
            Some(byte) if byte.is_ascii_alphabetic() => {
                "this is no value; a text stands in double quotes, and the words are `true`, `false`, `null`"
            }
            Some(_) => "a value is expected here",
        })
    }

    pub(super) fn no_name(&self) -> Box<SyntaxError> {
        self.error(match self.peek() {
            Some(b'\'') => "a name stands in double quotes, not in single ones",
            Some(b'#') => "a comment begins with `//`, not with `#`",
            Some(b',') => "there is one comma too many",
            Some(_) | None => "a name in double quotes is expected here",
        })
    }

    pub(super) fn no_comma(&self, close: u8) -> Box<SyntaxError> {
        let close = char::from(close);
        match self.peek() {
            None => self.error(&format!("the text ends before the closing `{close}`")),
            Some(b'#') => self.error("a comment begins with `//`, not with `#`"),
            Some(b'}' | b']') => {
                self.error(&format!("a `{close}` is expected before this bracket"))
            }
            Some(_) => self.error(&format!("a `,` or `{close}` is expected here")),
        }
    }
}
