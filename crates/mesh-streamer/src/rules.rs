//! Debug builds check every message, as it is sent, against what clients can take.

use mesh_wire::{MapResponse, SessionRules};

use crate::Compression;
use crate::encode::Message;

/// Panics in a debug build if a message would mislead the client of a session.
pub(crate) fn check(rules: &mut SessionRules, message: &Message, compression: Compression) {
    if cfg!(debug_assertions) {
        let framed = message.concat();
        let payload = &framed[4..];
        let json = match compression {
            Compression::None => payload.to_vec(),
            Compression::Zstd => zstd::decode_all(payload).expect("the message decompresses"),
        };
        let message: MapResponse = serde_json::from_slice(&json).expect("the message is JSON");
        let broken = rules.apply(&message).err();
        debug_assert_eq!(broken, None, "a client would be misled by {message:?}");
    }
}
