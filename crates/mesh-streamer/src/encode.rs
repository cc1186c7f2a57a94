//! From a message to the bytes of a map stream: length, then JSON, compressed if the client asked for it.

use std::sync::{Mutex, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use mesh_wire::{KEEP_ALIVE_JSON, MapResponse};

/// How a client wants its messages. Fixed for a whole stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Plain JSON.
    None,
    /// One zstd frame per message.
    Zstd,
}

/// The one compression level: messages and keep-alives must come out of the same encoder (see
/// [`Encoder::encode`]), and higher levels gain nothing on netmaps.
const ZSTD_LEVEL: i32 = 1;

/// Most idle compression contexts that are kept: making one costs more than compressing a delta.
const IDLE_CONTEXTS_MAX: usize = 16;

/// Turns messages into frames. Shared by all streams.
#[derive(Default)]
pub(crate) struct Encoder {
    idle: Mutex<Vec<zstd::bulk::Compressor<'static>>>,
    keep_alive_plain: std::sync::OnceLock<Bytes>,
    keep_alive_zstd: std::sync::OnceLock<Bytes>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

impl Encoder {
    /// One message as a frame.
    ///
    /// No other message has the length of a keep-alive: clients from 1.90 on remember the keep-alive by a
    /// buffer that later messages overwrite, and take a message of its length for another keep-alive.
    /// JSON may end in a space, so that is what moves such a message out of the way.
    ///
    /// Source: tailscale `control/controlclient/direct.go`, `decodeMsg`.
    pub(crate) fn encode(&self, message: &MapResponse, compression: Compression) -> Bytes {
        let mut json = serde_json::to_vec(message).expect("invariant: wire types serialize");
        let taken = self.keep_alive(compression).len();
        loop {
            let frame = self.frame_of(&json, compression);
            if frame.len() != taken {
                return frame;
            }
            json.push(b' ');
        }
    }

    /// The keep-alive, always the same bytes: clients compare them and skip decoding.
    pub(crate) fn keep_alive(&self, compression: Compression) -> Bytes {
        let kept = match compression {
            Compression::None => &self.keep_alive_plain,
            Compression::Zstd => &self.keep_alive_zstd,
        };
        kept.get_or_init(|| self.frame_of(KEEP_ALIVE_JSON.as_bytes(), compression)).clone()
    }

    fn frame_of(&self, json: &[u8], compression: Compression) -> Bytes {
        match compression {
            Compression::None => frame(json),
            Compression::Zstd => frame(&self.compress(json)),
        }
    }

    fn compress(&self, json: &[u8]) -> Vec<u8> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut compressor = idle.unwrap_or_else(|| {
            zstd::bulk::Compressor::new(ZSTD_LEVEL)
                .expect("invariant: the level is one that zstd has")
        });
        let compressed =
            compressor.compress(json).expect("invariant: the buffer is as large as zstd asks for");
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CONTEXTS_MAX {
            idle.push(compressor);
        }
        compressed
    }
}

/// A payload behind its length: four bytes, little-endian.
///
/// Source: tailscale `control/controlclient/direct.go`, `sendMapRequest`.
pub fn frame(payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(4 + payload.len());
    frame.put_u32_le(u32::try_from(payload.len()).expect("invariant: a netmap is below 4 GiB"));
    frame.put_slice(payload);
    frame.freeze()
}
