//! From JSON to the bytes of a map stream: length, then pieces, compressed if the client asked for it.
//!
//! A message is one JSON text cut into pieces. Each piece is compressed by itself, for frames of zstd may follow each
//! other, so that pieces which many clients get alike are made once.
//!
//! Source: tailscale `control/controlclient/direct.go`, `decodeMsg`; `util/zstdframe`.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use mesh_wire::{KEEP_ALIVE_JSON, MapResponse};

use crate::metrics::Metrics;

/// How a client wants its messages. Fixed for a whole stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Plain JSON.
    None,
    /// zstd, in one frame or several.
    Zstd,
}

/// One message of a map stream, in pieces that are sent one after the other. A clone shares them.
pub type Message = Arc<[Bytes]>;

/// The one compression level: messages and keep-alives must come out of the same encoder (see
/// [`Encoder::message`]), and higher levels gain nothing on netmaps.
const ZSTD_LEVEL: i32 = 1;

/// Most idle compressors that are kept: making one costs more than compressing a delta.
const IDLE_MAX: usize = 16;

/// Most room that an idle compressor keeps, in bytes. A message that wants more is rare.
const IDLE_ROOM_MAX: usize = 256 << 10;

/// Turns texts into messages. Shared by all streams.
#[derive(Default)]
pub(crate) struct Encoder {
    idle: Mutex<Vec<Compressor>>,
    keep_alives: [OnceLock<Message>; 2],
    metrics: Metrics,
}

struct Compressor {
    context: zstd::bulk::Compressor<'static>,
    /// Where it writes: what it makes is far smaller than what zstd wants room for.
    room: Vec<u8>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

impl Encoder {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { metrics, ..Self::default() }
    }

    /// A message of one piece.
    pub(crate) fn encode(&self, message: &MapResponse, compression: Compression) -> Message {
        let json = serde_json::to_string(message).expect("invariant: wire types serialize");
        self.message(vec![self.piece(&json, compression)], compression)
    }

    /// A part of a message's text, as it is sent.
    pub(crate) fn piece(&self, json: &str, compression: Compression) -> Bytes {
        let piece = match compression {
            Compression::None => Bytes::copy_from_slice(json.as_bytes()),
            Compression::Zstd => self.compress(json.as_bytes()),
        };
        self.metrics.encoded(piece.len());
        piece
    }

    /// A message of pieces, the first of which is better a small one, for it is copied behind the length.
    ///
    /// No other message has the length of a keep-alive: clients from 1.90 on remember the keep-alive by a
    /// buffer that later messages overwrite, and take a message of its length for another keep-alive.
    /// JSON may end in a space, so that is what moves such a message out of the way.
    ///
    /// Source: tailscale `control/controlclient/direct.go`, `decodeMsg`.
    pub(crate) fn message(&self, mut pieces: Vec<Bytes>, compression: Compression) -> Message {
        if framed_len(&pieces) == framed_len(&self.keep_alive(compression)) - LENGTH_BYTES {
            pieces.push(self.piece(" ", compression));
        }
        framed(pieces)
    }

    /// The keep-alive, always the same bytes: clients compare them and skip decoding.
    pub(crate) fn keep_alive(&self, compression: Compression) -> Message {
        let kept = &self.keep_alives[compression as usize];
        kept.get_or_init(|| framed(vec![self.piece(KEEP_ALIVE_JSON, compression)])).clone()
    }

    fn compress(&self, json: &[u8]) -> Bytes {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut compressor = idle.unwrap_or_else(Compressor::new);
        let compressed = compressor.compress(json);
        if compressor.room.capacity() > IDLE_ROOM_MAX {
            compressor.room = Vec::new();
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(compressor);
        }
        compressed
    }
}

impl Compressor {
    /// Its frames do not tell how long their text is: for each frame that does, Go's decoder moves all texts before it
    /// to a place of exactly that much more room, which takes it a minute for the map of 250,000 nodes.
    ///
    /// Source: klauspost/compress `zstd/decoder.go`, `DecodeAll`.
    fn new() -> Self {
        let mut context = zstd::bulk::Compressor::new(ZSTD_LEVEL)
            .expect("invariant: the level is one that zstd has");
        context.include_contentsize(false).expect("invariant: zstd has this setting");
        Self { context, room: Vec::new() }
    }

    fn compress(&mut self, json: &[u8]) -> Bytes {
        self.room.clear();
        self.room.reserve(zstd::zstd_safe::compress_bound(json.len()));
        self.context
            .compress_to_buffer(json, &mut self.room)
            .expect("invariant: the buffer is as large as zstd asks for");
        Bytes::copy_from_slice(&self.room)
    }
}

/// Bytes of a message's length: little-endian, and not counting itself.
///
/// Source: tailscale `control/controlclient/direct.go`, `sendMapRequest`.
const LENGTH_BYTES: usize = 4;

fn framed_len(pieces: &[Bytes]) -> usize {
    pieces.iter().map(Bytes::len).sum()
}

fn framed(mut pieces: Vec<Bytes>) -> Message {
    pieces.retain(|piece| !piece.is_empty());
    let length = framed_len(&pieces);
    let first = pieces.first_mut().expect("invariant: a message has a text");
    let mut begin = BytesMut::with_capacity(LENGTH_BYTES + first.len());
    begin.put_u32_le(u32::try_from(length).expect("invariant: a netmap is below 4 GiB"));
    begin.put_slice(first);
    *first = begin.freeze();
    pieces.into()
}

/// The fields of a message as JSON, without the braces around them.
pub(crate) fn fields(message: &MapResponse) -> String {
    let mut json = serde_json::to_string(message).expect("invariant: wire types serialize");
    json.pop();
    json.remove(0);
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_do_not_tell_how_long_their_text_is() {
        let encoder = Encoder::default();
        for text in ["{}".to_owned(), "\"peer\",".repeat(10_000)] {
            let frame = encoder.piece(&text, Compression::Zstd);
            let told = zstd::zstd_safe::get_frame_content_size(&frame).expect("a frame");
            assert_eq!(told, None);
            assert_eq!(zstd::decode_all(&*frame).expect("a frame"), text.as_bytes());
        }
    }
}
