//! The messages of a map stream: `little-endian length (4) | payload`, one after the other.

mod long;
mod parts;

use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use mesh_wire::MapResponse;
use thiserror::Error;
use tokio_util::sync::DropGuard;

use crate::message::Message;
use crate::scan::ScanError;

pub use long::{NAMED_PEERS_MAX, REST_BYTES_MAX};
pub use parts::{MapPart, MapParts};

/// Most bytes that a message may have, compressed and again decompressed, as with tailscale's `testcontrol`.
pub const FRAME_BYTES_MAX: usize = 256 << 20;

const LENGTH_BYTES: usize = size_of::<u32>();

/// Most room made at once for what is missing of a message: its length is the server's word.
const ROOM_BYTES_MAX: usize = 1 << 20;

/// Why a map stream ended early.
#[derive(Debug, Error)]
pub enum MapStreamError {
    /// The connection failed, or the server reset the stream.
    #[error("map stream broke off")]
    Http(#[from] hyper::Error),
    /// The stream ended inside a message.
    #[error("map stream ended inside a message")]
    Truncated,
    /// A message without a byte, which no server may send.
    #[error("empty message in map stream")]
    Empty,
    /// A message longer than [`FRAME_BYTES_MAX`], compressed or decompressed.
    #[error("message in map stream longer than {FRAME_BYTES_MAX} bytes")]
    TooLong,
    /// A message that is no whole zstd.
    #[error("message in map stream does not decompress")]
    Compression(#[source] io::Error),
    /// A message that is no map response.
    #[error("message in map stream is malformed")]
    Json(#[from] serde_json::Error),
    /// A long message that is no map response.
    #[error("long message in map stream is malformed")]
    Scan(#[from] ScanError),
    /// A long message that names more than [`NAMED_PEERS_MAX`] peers.
    #[error("message in map stream names more than {NAMED_PEERS_MAX} peers")]
    TooManyPeers,
    /// A long message with more than [`REST_BYTES_MAX`] bytes that are not about peers.
    #[error("message in map stream has more than {REST_BYTES_MAX} bytes beside its peers")]
    TooMuchRest,
}

/// An open map stream. Dropping it tells the server.
#[derive(Debug)]
pub struct MapStream {
    body: Incoming,
    frames: FrameReader,
    /// Keeps the channel open while there is no other handle on it.
    _channel: Arc<DropGuard>,
}

impl MapStream {
    pub(crate) fn new(body: Incoming, compressed: bool, channel: Arc<DropGuard>) -> Self {
        Self { body, frames: FrameReader::new(compressed), _channel: channel }
    }

    /// The stream with its long messages in parts, for those who must not hold a whole one.
    pub fn in_parts(self) -> MapParts {
        MapParts::new(self)
    }

    /// Waits for the next message, keep-alives included; `None` is the end of the stream. Safe to cancel.
    pub async fn next(&mut self) -> Result<Option<MapResponse>, MapStreamError> {
        let Some(json) = self.next_json().await? else { return Ok(None) };
        Ok(Some(serde_json::from_slice(&json)?))
    }

    /// The same without reading the JSON, for those who need little of it.
    pub async fn next_json(&mut self) -> Result<Option<Bytes>, MapStreamError> {
        self.next_message().await?.map(|message| message.json()).transpose()
    }

    /// The same without decompressing it either, for those who follow many streams.
    pub async fn next_message(&mut self) -> Result<Option<Message>, MapStreamError> {
        loop {
            if let Some(message) = self.frames.take()? {
                return Ok(Some(message));
            }
            match self.receive().await? {
                true => {}
                false if self.frames.received.is_empty() => return Ok(None),
                false => return Err(MapStreamError::Truncated),
            }
        }
    }

    /// Waits for more bytes; `false` is the end of the stream.
    async fn receive(&mut self) -> Result<bool, MapStreamError> {
        let Some(frame) = self.body.frame().await.transpose()? else { return Ok(false) };
        if let Ok(data) = frame.into_data() {
            self.frames.push(data);
        }
        Ok(true)
    }
}

/// Cuts a byte stream into messages.
#[derive(Debug)]
struct FrameReader {
    compressed: bool,
    received: BytesMut,
}

impl FrameReader {
    fn new(compressed: bool) -> Self {
        Self { compressed, received: BytesMut::new() }
    }

    /// Takes in what came. A message that came by itself is not copied.
    fn push(&mut self, data: Bytes) {
        if self.received.is_empty() {
            self.received = data.into();
        } else {
            self.received.extend_from_slice(&data);
        }
    }

    /// The length of the next message, if that has arrived: neither none nor too many bytes.
    fn length(&self) -> Result<Option<usize>, MapStreamError> {
        let Some(&length) = self.received.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        match usize::try_from(u32::from_le_bytes(length)) {
            Ok(0) => Err(MapStreamError::Empty),
            Ok(length) if length <= FRAME_BYTES_MAX => Ok(Some(length)),
            Ok(_) | Err(_) => Err(MapStreamError::TooLong),
        }
    }

    /// Takes one whole message off what was received, if it has arrived.
    fn take(&mut self) -> Result<Option<Message>, MapStreamError> {
        let Some(length) = self.length()? else { return Ok(None) };
        let missing = (LENGTH_BYTES + length).saturating_sub(self.received.len());
        if missing > 0 {
            self.received.reserve(missing.min(ROOM_BYTES_MAX));
            return Ok(None);
        }
        self.received.advance(LENGTH_BYTES);
        let payload = self.received.split_to(length).freeze();
        if self.received.is_empty() {
            // A stream that waits for its next message holds no buffer.
            self.received = BytesMut::new();
        }
        Ok(Some(Message::new(payload, self.compressed)))
    }
}

#[cfg(test)]
mod tests;
