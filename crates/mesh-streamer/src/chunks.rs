//! Full maps in chunks: pieces of the list of peers that all viewers of a class get alike.
//!
//! A chunk is a range of ids, wide enough to hold a few dozen peers. It stays as it is until one of its nodes changes.
//! A viewer gets all chunks as they are kept but the one that it is itself in.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use mesh_model::{NodeId, UserId};
use mesh_netmap::{MapContext, peer_aspect};
use mesh_policy::ClassId;
use roaring::RoaringBitmap;

use crate::Compression;
use crate::encode::Encoder;
use crate::flush::Flush;
use crate::texts::Texts;
use crate::versions::BLOCK;

/// Most bytes of chunks that are kept. Beyond it all are forgotten.
const CHUNK_BYTES_MAX: usize = 128 << 20;

/// Most blocks of a chunk: all ids there are.
const BLOCKS_MAX: u32 = u32::MAX / BLOCK;

/// Which peers of whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ChunkKey {
    class: ClassId,
    /// Its first block of ids, and how many.
    start: u32,
    blocks: u32,
    /// Whether it begins the list, so that no comma stands before it.
    is_first: bool,
    compression: Compression,
}

/// A piece of the list of peers.
#[derive(Debug, Clone)]
struct Chunk {
    piece: Bytes,
    /// Whose nodes are in it.
    owners: Arc<[UserId]>,
}

/// A chunk that somebody makes, and of what.
#[derive(Debug)]
struct Kept {
    version: u64,
    context: Arc<MapContext>,
    chunk: OnceLock<Chunk>,
}

/// Chunks of full maps, and the texts that they are made of.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    kept: Mutex<KeptChunks>,
    pub(crate) texts: Texts,
}

#[derive(Debug, Default)]
struct KeptChunks {
    by_key: HashMap<ChunkKey, Arc<Kept>>,
    bytes: usize,
}

/// The list of peers of a viewer, in pieces, without the brackets around it.
#[derive(Debug, Default)]
pub(crate) struct PeerList {
    pub(crate) pieces: Vec<Bytes>,
    pub(crate) owners: BTreeSet<UserId>,
}

/// A list that is being made: for whom, and of whom.
#[derive(Debug, Clone, Copy)]
struct Order<'a> {
    flush: &'a Flush,
    viewer: NodeId,
    peers: &'a RoaringBitmap,
    encoder: &'a Encoder,
}

impl Chunks {
    /// The list of a viewer's peers, who are `peers`.
    pub(crate) fn list(
        &self,
        flush: &Flush,
        viewer: NodeId,
        peers: &RoaringBitmap,
        encoder: &Encoder,
        compression: Compression,
    ) -> PeerList {
        let mut list = PeerList::default();
        let Some(class) = flush.snapshot.policy.class_of(viewer) else { return list };
        let order = Order { flush, viewer, peers, encoder };
        let blocks = blocks_per_chunk(peers.len(), peers.max().unwrap_or(0));
        let width = blocks * BLOCK;
        let mut next = peers.min();
        while let Some(id) = next {
            let start = id / width * blocks;
            let key =
                ChunkKey { class, start, blocks, is_first: list.pieces.is_empty(), compression };
            let ids = key.ids();
            let is_own = ids.contains(&viewer.0);
            let chunk = if is_own { self.make(order, key) } else { self.get_or_make(order, key) };
            list.pieces.push(chunk.piece);
            list.owners.extend(&*chunk.owners);
            next = peers.range(ids.end()..).find(|id| !ids.contains(id));
        }
        list
    }

    fn get_or_make(&self, order: Order<'_>, key: ChunkKey) -> Chunk {
        let version = order.flush.versions.of(key.start..key.start + key.blocks);
        let kept = self.kept(key, version, &order.flush.context);
        let mut is_new = false;
        let chunk = kept.chunk.get_or_init(|| {
            is_new = true;
            self.make(order, key)
        });
        if is_new {
            self.count(chunk.piece.len());
        }
        chunk.clone()
    }

    fn kept(&self, key: ChunkKey, version: u64, context: &Arc<MapContext>) -> Arc<Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.by_key.get(&key);
        let is_same =
            |kept: &&Arc<Kept>| kept.version == version && Arc::ptr_eq(&kept.context, context);
        if let Some(known) = known.filter(is_same) {
            return known.clone();
        }
        let fresh =
            Arc::new(Kept { version, context: context.clone(), chunk: OnceLock::default() });
        if let Some(old) = kept.by_key.insert(key, fresh.clone()) {
            kept.bytes -= old.chunk.get().map_or(0, |chunk| chunk.piece.len()).min(kept.bytes);
        }
        fresh
    }

    fn count(&self, bytes: usize) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += bytes;
        if kept.bytes > CHUNK_BYTES_MAX {
            *kept = KeptChunks::default();
        }
    }

    fn make(&self, order: Order<'_>, key: ChunkKey) -> Chunk {
        let Order { flush, viewer, peers, encoder } = order;
        let (mut json, mut owners) = (String::new(), BTreeSet::new());
        for id in peers.range(key.ids()).map(NodeId) {
            let aspect = peer_aspect(&flush.snapshot, viewer, id);
            let Some(text) = self.texts.get(&flush.snapshot, &flush.context, id, &aspect) else {
                continue;
            };
            if !key.is_first || !json.is_empty() {
                json.push(',');
            }
            json.push_str(&text);
            owners.extend(flush.snapshot.tailnet.node(id).map(|node| node.owner.user()));
        }
        Chunk { piece: encoder.piece(&json, key.compression), owners: owners.into_iter().collect() }
    }
}

impl ChunkKey {
    fn ids(&self) -> std::ops::RangeInclusive<u32> {
        let first = self.start * BLOCK;
        first..=first.saturating_add(self.blocks * BLOCK - 1)
    }
}

/// How many blocks of ids hold a block's worth of peers or up to twice that, if a viewer has `peers` among ids up to
/// `max`. A power of two, so that viewers of a class agree and few keys are in use.
fn blocks_per_chunk(peers: u64, max: u32) -> u32 {
    let ids_per_peer = (u64::from(max) + 1) / peers.max(1);
    let blocks = ids_per_peer.max(1).next_power_of_two();
    u32::try_from(blocks).unwrap_or(BLOCKS_MAX).min(BLOCKS_MAX)
}
