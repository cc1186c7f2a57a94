//! The frame cache: what a class of viewers is told, encoded once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use mesh_policy::ClassId;
use mesh_wire::MapResponse;

use crate::Compression;

/// How many frames are kept. Streams that wake together ask for the same few; the rest is stale.
const FRAMES_MAX: usize = 256;

/// What a frame tells, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FrameKey {
    pub(crate) class: ClassId,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) compression: Compression,
}

/// An encoded message; `None` when there is nothing to tell.
#[derive(Debug, Clone)]
pub(crate) struct CachedFrame {
    pub(crate) bytes: Option<Bytes>,
    /// What the bytes say, for the assertions of debug builds.
    pub(crate) message: Arc<MapResponse>,
}

/// Frames by what they tell.
#[derive(Debug, Default)]
pub(crate) struct Frames(Mutex<HashMap<FrameKey, CachedFrame>>);

impl Frames {
    /// The frame of a key, made by `make` if nobody has asked for it yet. Made under the lock: whoever else
    /// wants the same frame had to wait for it anyway.
    pub(crate) fn get_or_make(
        &self,
        key: FrameKey,
        make: impl FnOnce() -> CachedFrame,
    ) -> CachedFrame {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = frames.get(&key) {
            return frame.clone();
        }
        if frames.len() == FRAMES_MAX {
            frames.retain(|kept, _| kept.to == key.to);
        }
        if frames.len() == FRAMES_MAX {
            frames.clear();
        }
        let frame = make();
        frames.insert(key, frame.clone());
        frame
    }
}
