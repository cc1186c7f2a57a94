//! What the control server says to a relay that follows its list of nodes: lines of JSON, one after the other.
//!
//! The list comes first, in as many lines as it takes; the last of them says that it is complete. Later lines say
//! what has changed. A line that says nothing shows that the server is still there.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use mesh_keys::NodePublic;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where the list is followed, behind the control server's URL.
pub const LIST_PATH: &str = "/api/v1/derp/nodekey";

/// A line comes at least this often.
pub const KEEP_ALIVE_PERIOD: Duration = Duration::from_secs(5);

/// Keys that one line names at most, so that it has some 38,000 bytes.
pub const LINE_KEYS_MAX: usize = 512;

/// Longest line that is read, in bytes.
const LINE_BYTES_MAX: usize = 64 << 10;

/// One line. A key is in it once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Line {
    /// Keys of nodes that may use the relay from here on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub admitted: Vec<NodePublic>,
    /// Keys of those that no longer may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<NodePublic>,
    /// Whether the list is complete with this line: a key that was not named is not admitted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub complete: bool,
}

impl Line {
    /// The lines of a whole list.
    pub fn list(keys: &[NodePublic]) -> impl Iterator<Item = Self> {
        let lines = keys.chunks(LINE_KEYS_MAX);
        let lines = lines.map(|keys| Self { admitted: keys.to_vec(), ..Self::default() });
        lines.chain([Self { complete: true, ..Self::default() }])
    }

    /// The lines of a change.
    pub fn change(admitted: &[NodePublic], removed: &[NodePublic]) -> impl Iterator<Item = Self> {
        let removed = removed.chunks(LINE_KEYS_MAX);
        let removed = removed.map(|keys| Self { removed: keys.to_vec(), ..Self::default() });
        let admitted = admitted.chunks(LINE_KEYS_MAX);
        removed.chain(admitted.map(|keys| Self { admitted: keys.to_vec(), ..Self::default() }))
    }

    /// The line as it is sent, with its end.
    pub fn encode(&self) -> Bytes {
        let mut text = serde_json::to_vec(self).expect("invariant: keys and flags are JSON");
        text.push(b'\n');
        text.into()
    }
}

/// Why what came is no line.
#[derive(Debug, Error)]
pub(crate) enum LineError {
    #[error("a line is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    #[error("a line is not what a meshcontrol says")]
    Malformed(#[from] serde_json::Error),
}

/// Cuts what arrives into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    buffer: BytesMut,
    /// Bytes of `buffer` without an end of a line among them.
    searched: usize,
}

impl Lines {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole line, if it has come.
    pub(crate) fn next(&mut self) -> Result<Option<Line>, LineError> {
        let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return if self.searched > LINE_BYTES_MAX { Err(LineError::TooLong) } else { Ok(None) };
        };
        let text = self.buffer.split_to(self.searched + end);
        self.buffer.advance(1);
        self.searched = 0;
        if text.len() > LINE_BYTES_MAX {
            return Err(LineError::TooLong);
        }
        Ok(Some(serde_json::from_slice(&text)?))
    }
}

#[cfg(test)]
mod tests;
