//! The frame cache: what a class of viewers is told, encoded once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use mesh_netmap::MapContext;
use mesh_policy::ClassId;
use mesh_wire::MapResponse;

use crate::Compression;

/// For how many keys frames are kept. Streams that wake together ask for the same few; the rest is stale.
const FRAMES_MAX: usize = 256;

/// What a frame tells, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FrameKey {
    pub(crate) class: ClassId,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) compression: Compression,
}

/// An encoded message.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Bytes,
    /// What the bytes say, for the assertions of debug builds.
    pub(crate) message: MapResponse,
}

/// The frames of a key, none if there is nothing to tell, and the context that they were made in.
#[derive(Debug)]
struct Made {
    frames: Arc<[Frame]>,
    context: Arc<MapContext>,
}

/// Frames by what they tell.
#[derive(Debug, Default)]
pub(crate) struct Frames(Mutex<HashMap<FrameKey, Made>>);

impl Frames {
    /// The frames of a key in a context, made by `make` if nobody has asked for them yet. Made under the lock:
    /// whoever else wants the same frames had to wait for them anyway.
    pub(crate) fn get_or_make(
        &self,
        key: FrameKey,
        context: &Arc<MapContext>,
        make: impl FnOnce() -> Arc<[Frame]>,
    ) -> Arc<[Frame]> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(&key).filter(|made| Arc::ptr_eq(&made.context, context));
        if let Some(made) = known {
            return made.frames.clone();
        }
        if all.len() == FRAMES_MAX {
            all.retain(|kept, _| kept.to == key.to);
        }
        if all.len() == FRAMES_MAX {
            all.clear();
        }
        let frames = make();
        all.insert(key, Made { frames: frames.clone(), context: context.clone() });
        frames
    }
}
