//! The messages of a map stream: `little-endian length (4) | payload`, one after the other.

use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use mesh_wire::MapResponse;
use thiserror::Error;
use tokio_util::sync::DropGuard;

use crate::message::Message;

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
            match self.body.frame().await.transpose()? {
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.frames.push(data);
                    }
                }
                None if self.frames.received.is_empty() => return Ok(None),
                None => return Err(MapStreamError::Truncated),
            }
        }
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

    /// Takes one whole message off what was received, if it has arrived.
    fn take(&mut self) -> Result<Option<Message>, MapStreamError> {
        let Some(&length) = self.received.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length == 0 {
            return Err(MapStreamError::Empty);
        }
        if length > FRAME_BYTES_MAX {
            return Err(MapStreamError::TooLong);
        }
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
