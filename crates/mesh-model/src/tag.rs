//! Tags: what owns a node that is not a person's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest tag, in bytes, with its prefix.
const TAG_BYTES_MAX: usize = 128;

/// A tag such as `tag:web`.
///
/// Text form: `tag:`, an ASCII letter, then letters, digits and `-`.
/// Source: tailscale `tailcfg.CheckTag`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tag(String);

/// Why a text is not a tag.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not a tag: write `tag:` and a name that starts with a letter and holds letters, digits and `-`"
)]
pub struct ParseTagError(String);

impl Tag {
    /// The whole text, with `tag:`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = ParseTagError;

    fn from_str(text: &str) -> Result<Self, ParseTagError> {
        let error = || ParseTagError(text.chars().take(TAG_BYTES_MAX).collect());
        let name = text.strip_prefix("tag:").ok_or_else(error)?;
        let well_formed = text.len() <= TAG_BYTES_MAX
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if well_formed { Ok(Self(text.to_owned())) } else { Err(error()) }
    }
}

impl TryFrom<String> for Tag {
    type Error = ParseTagError;

    fn try_from(text: String) -> Result<Self, ParseTagError> {
        text.parse()
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_checked() {
        for good in ["tag:web", "tag:Web-1", "tag:a"] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        for bad in ["web", "tag:", "tag:1", "tag:a b", "tag:a\"", "TAG:a"] {
            assert!(bad.parse::<Tag>().is_err(), "{bad}");
        }
    }
}
