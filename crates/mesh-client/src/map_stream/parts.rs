//! A map stream whose long messages come in parts.

use bytes::{Buf as _, Bytes};
use mesh_wire::{MapResponse, Node};

use super::long::{Ended, LongMessage};
use super::{LENGTH_BYTES, MapStream, MapStreamError};

/// A message of so many bytes on the wire comes in one part, unless it is longer than it looks.
const SHORT_BYTES_MAX: usize = 64 << 10;

/// Bytes that a short message may have when it is decompressed: maps compress to a tenth.
const SHORT_JSON_BYTES_MAX: usize = 1 << 20;

/// A part of a map stream.
///
/// A long message is told in parts, for a first map may have hundreds of thousands of peers. Applied one after the other
/// its parts come to the same as the message.
#[derive(Debug, Clone, PartialEq)]
pub enum MapPart {
    /// Some peers of a full list. The next [`MapPart::Message`] ends the list: peers that were not named by then are gone.
    Peers(Vec<Node>),
    /// A message, or what is left of it when its peers have been told. Many changed peers come as several messages.
    Message(Box<MapResponse>),
}

/// An open map stream, read in parts; see [`MapStream::in_parts`].
#[derive(Debug)]
pub struct MapParts {
    stream: MapStream,
    /// The long message that is under way.
    long: Option<LongMessage>,
}

impl MapParts {
    pub(super) fn new(stream: MapStream) -> Self {
        Self { stream, long: None }
    }

    /// Waits for the next part, keep-alives included; `None` is the end of the stream. Safe to cancel.
    ///
    /// # Errors
    /// The parts before were sound; what they are parts of is not whole.
    pub async fn next(&mut self) -> Result<Option<MapPart>, MapStreamError> {
        loop {
            if let Some(part) = self.take()? {
                return Ok(Some(part));
            }
            match self.stream.receive().await? {
                true => {}
                false if self.is_between_messages() => return Ok(None),
                false => return Err(MapStreamError::Truncated),
            }
        }
    }

    fn is_between_messages(&self) -> bool {
        self.long.is_none() && self.stream.frames.received.is_empty()
    }

    /// Takes a part off what was received, if it has arrived.
    fn take(&mut self) -> Result<Option<MapPart>, MapStreamError> {
        let frames = &mut self.stream.frames;
        if self.long.is_none() {
            let Some(length) = frames.length()? else { return Ok(None) };
            if length > SHORT_BYTES_MAX {
                frames.received.advance(LENGTH_BYTES);
                self.long = Some(LongMessage::new(frames.compressed, Bytes::new(), length));
            } else {
                let Some(message) = frames.take()? else { return Ok(None) };
                match message.json_up_to(SHORT_JSON_BYTES_MAX) {
                    Ok(json) => {
                        return Ok(Some(MapPart::Message(serde_json::from_slice(&json)?)));
                    }
                    Err(MapStreamError::TooLong) => {
                        let payload = message.into_payload();
                        self.long = Some(LongMessage::new(frames.compressed, payload, 0));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let Some(long) = &mut self.long else { return Ok(None) };
        let Some((part, ended)) = long.take(&mut frames.received)? else { return Ok(None) };
        self.long.take_if(|_| ended == Ended::Yes);
        Ok(Some(part))
    }
}
