//! One message of a map stream as it came: plain JSON, or one zstd frame after the other.
//!
//! Servers put messages together from frames that they compressed once for many clients. Whoever follows many
//! streams gains by looking at the [`Piece`]s: pieces with the same bytes say the same.

use std::cell::RefCell;
use std::io;

use bytes::{Buf as _, Bytes};
use zstd::zstd_safe::{self, DCtx, InBuffer, OutBuffer, ResetDirective};

use crate::MapStreamError;
use crate::map_stream::FRAME_BYTES_MAX;

/// Room that a frame gets at once for each of its bytes, whatever its header promises: ten bytes shall not
/// make us allocate [`FRAME_BYTES_MAX`]. Maps compress to a tenth.
const RATIO_TRUSTED: usize = 64;

/// Room that is added when a frame turns out to be longer.
const ROOM_BYTES: usize = 64 * 1024;

thread_local! {
    /// The decoder of this thread: making one costs more than most messages do.
    static DECODER: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

/// A message before it is decompressed.
#[derive(Debug, Clone)]
pub struct Message {
    payload: Bytes,
    compressed: bool,
}

impl Message {
    pub(crate) fn new(payload: Bytes, compressed: bool) -> Self {
        Self { payload, compressed }
    }

    /// Its length on the wire in bytes, without the length field before it.
    pub fn wire_bytes(&self) -> usize {
        self.payload.len()
    }

    pub(crate) fn into_payload(self) -> Bytes {
        self.payload
    }

    /// Its JSON, at most [`FRAME_BYTES_MAX`] bytes.
    pub fn json(&self) -> Result<Bytes, MapStreamError> {
        self.json_up_to(FRAME_BYTES_MAX)
    }

    pub(crate) fn json_up_to(&self, max: usize) -> Result<Bytes, MapStreamError> {
        if !self.compressed {
            return Ok(self.payload.clone());
        }
        let mut json = Vec::new();
        for piece in self.pieces() {
            piece?.append_to(&mut json, max)?;
        }
        Ok(json.into())
    }

    /// Its pieces in order: what they hold, put together, is the JSON. Plain JSON is one piece.
    ///
    /// After an error there is nothing more.
    pub fn pieces(&self) -> impl Iterator<Item = Result<Piece<'_>, MapStreamError>> {
        let mut rest = &self.payload[..];
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let length = if self.compressed { frame_bytes(rest) } else { Ok(rest.len()) };
            let (bytes, after) = rest.split_at(length.as_ref().copied().unwrap_or(rest.len()));
            rest = after;
            Some(length.map(|_| Piece { bytes, compressed: self.compressed }))
        })
    }
}

/// A part of a message that was compressed by itself.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// As it came.
    pub bytes: &'a [u8],
    compressed: bool,
}

impl Piece<'_> {
    /// Whether it is a zstd frame.
    pub fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// Appends what the piece holds to `json`, which must not grow beyond `max` bytes.
    pub fn append_to(&self, json: &mut Vec<u8>, max: usize) -> Result<(), MapStreamError> {
        if self.compressed {
            return DECODER.with_borrow_mut(|decoder| {
                let result = append_frame(decoder, self.bytes, json, max);
                if result.is_err() {
                    decoder.reset(ResetDirective::SessionOnly).map_err(broken)?;
                }
                result
            });
        }
        if self.bytes.len() > max.saturating_sub(json.len()) {
            return Err(MapStreamError::TooLong);
        }
        json.extend_from_slice(self.bytes);
        Ok(())
    }
}

/// Decompresses a message while it comes.
pub(crate) struct Inflater {
    /// `None` if the message is plain JSON.
    decoder: Option<DCtx<'static>>,
    /// Whether the decoder holds back what there was no room for.
    has_more: bool,
    /// Whether a frame has begun and not ended.
    is_in_frame: bool,
}

impl std::fmt::Debug for Inflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflater").field("is_in_frame", &self.is_in_frame).finish_non_exhaustive()
    }
}

impl Inflater {
    pub(crate) fn new(compressed: bool) -> Self {
        Self { decoder: compressed.then(DCtx::create), has_more: false, is_in_frame: false }
    }

    /// Whether nothing comes without more input.
    pub(crate) fn is_idle(&self) -> bool {
        !self.has_more
    }

    /// Checks that the message may end here.
    pub(crate) fn finish(&self) -> Result<(), MapStreamError> {
        if self.is_in_frame { Err(unfinished()) } else { Ok(()) }
    }

    /// Fills the spare capacity of `json` as far as `input` goes, and takes off `input` what that used.
    pub(crate) fn fill(
        &mut self,
        input: &mut Bytes,
        json: &mut Vec<u8>,
    ) -> Result<(), MapStreamError> {
        let room = json.capacity() - json.len();
        let Some(decoder) = &mut self.decoder else {
            json.extend_from_slice(&input.split_to(room.min(input.len())));
            return Ok(());
        };
        while json.len() < json.capacity() && (self.has_more || !input.is_empty()) {
            let mut source = InBuffer::around(input);
            let start = json.len();
            let remaining = decoder
                .decompress_stream(&mut OutBuffer::around_pos(json, start), &mut source)
                .map_err(broken)?;
            let used = source.pos();
            input.advance(used);
            self.is_in_frame = remaining != 0;
            self.has_more = self.is_in_frame && json.len() == json.capacity();
        }
        Ok(())
    }
}

/// The length of the zstd frame at the front of `bytes`.
fn frame_bytes(bytes: &[u8]) -> Result<usize, MapStreamError> {
    let length = zstd_safe::find_frame_compressed_size(bytes).map_err(broken)?;
    // A length of zero would go on for ever.
    if length == 0 || length > bytes.len() { Err(unfinished()) } else { Ok(length) }
}

fn append_frame(
    decoder: &mut DCtx<'_>,
    frame: &[u8],
    json: &mut Vec<u8>,
    max: usize,
) -> Result<(), MapStreamError> {
    let promised = zstd_safe::get_frame_content_size(frame).ok().flatten().unwrap_or(0);
    let promised = usize::try_from(promised).unwrap_or(usize::MAX);
    if promised > max.saturating_sub(json.len()) {
        return Err(MapStreamError::TooLong);
    }
    // One byte more lets the decoder see that it has room for all.
    json.reserve(promised.min(frame.len().saturating_mul(RATIO_TRUSTED)) + 1);
    let mut input = InBuffer::around(frame);
    loop {
        let start = json.len();
        let remaining =
            decoder.decompress_stream(&mut OutBuffer::around_pos(json, start), &mut input);
        if json.len() > max {
            return Err(MapStreamError::TooLong);
        }
        if remaining.map_err(broken)? == 0 {
            return Ok(());
        }
        if json.len() < json.capacity() && input.pos() == frame.len() {
            return Err(unfinished());
        }
        json.reserve(ROOM_BYTES);
    }
}

fn broken(code: zstd_safe::ErrorCode) -> MapStreamError {
    MapStreamError::Compression(io::Error::other(zstd_safe::get_error_name(code)))
}

fn unfinished() -> MapStreamError {
    MapStreamError::Compression(io::ErrorKind::UnexpectedEof.into())
}
