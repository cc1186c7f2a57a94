//! What a message says, in as few words as the harness needs: which peers come and go.
//!
//! Servers may compress a piece once and send it to many. The reader remembers what such pieces said, so that following
//! thousands of streams costs less than serving them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, RwLock};

use foldhash::fast::{FixedState, RandomState};
use mesh_client::{
    FRAME_BYTES_MAX, MapStreamError, Message, PeerSink, Piece, Place, ScanError, Scanner,
};
use mesh_wire::NodeId;
use serde::Deserialize;
use thiserror::Error;

/// Pieces shorter than this are read anew: that is as fast.
const REMEMBERED_BYTES_MIN: usize = 256;

/// Most pieces that are remembered; then all are forgotten.
const REMEMBERED_MAX: usize = 8192;

/// A node's id as a small number: the bit in a set of peers.
pub(crate) type Slot = u32;

/// What a message says, in the order in which it says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    KeepAlive,
    /// This is the node itself.
    Own(Slot),
    /// All peers are told anew.
    Full,
    Peer(Slot),
    Removed(Slot),
    /// Something about a peer that is already known.
    Touched(Slot),
    /// What [`Watched`] waits for.
    Seen,
}

/// A change of one node that somebody waits for.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    /// Each wait has a number of its own.
    pub(crate) number: u64,
    pub(crate) id: NodeId,
    pub(crate) change: Change,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Online(bool),
    Endpoint(SocketAddr),
}

/// Why a message cannot be read.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Message(#[from] MapStreamError),
    #[error(transparent)]
    Scan(#[from] ScanError),
}

/// Reads messages for all nodes.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    ids: RwLock<Ids>,
    memory: Mutex<Memory>,
    watched: RwLock<Option<Arc<Watched>>>,
}

#[derive(Debug, Default)]
struct Ids {
    slots: HashMap<NodeId, Slot, RandomState>,
    ids: Vec<NodeId>,
}

/// What pieces said that came more than once.
#[derive(Debug, Default)]
struct Memory {
    /// Pieces that came once so far.
    once: HashSet<Key, RandomState>,
    said: HashMap<Key, Arc<Said>, RandomState>,
}

/// A piece, where it stands in its message, and who waited for something meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    hash: u64,
    bytes: usize,
    place: Place,
    watched: u64,
}

#[derive(Debug)]
struct Said {
    news: Vec<News>,
    end: Place,
    json_bytes: usize,
}

/// Buffers of a thread, for what is being read.
#[derive(Debug, Default)]
struct Scratch {
    json: Vec<u8>,
    news: Vec<News>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Reader {
    /// Reads a message and hands over what it says, with the length of its JSON.
    pub(crate) fn read<T>(
        &self,
        message: &Message,
        take: impl FnOnce(&[News], usize) -> T,
    ) -> Result<T, ReadError> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.news.clear();
            let json_bytes = self.read_pieces(message, scratch)?;
            Ok(take(&scratch.news, json_bytes))
        })
    }

    fn read_pieces(&self, message: &Message, scratch: &mut Scratch) -> Result<usize, ReadError> {
        let watched = self.watched.read().expect("invariant: nobody panics here").clone();
        let mut scanner = Scanner::new();
        let mut json_bytes = 0;
        for piece in message.pieces() {
            let piece = piece?;
            let key = scanner.place().and_then(|place| key(&piece, place, watched.as_deref()));
            if let Some(said) = key.and_then(|key| self.remembered(&key)) {
                scratch.news.extend_from_slice(&said.news);
                scanner.jump(said.end);
                json_bytes += said.json_bytes;
                continue;
            }
            scratch.json.clear();
            piece.append_to(&mut scratch.json, FRAME_BYTES_MAX)?;
            json_bytes += scratch.json.len();
            let start = scratch.news.len();
            let mut interpreter =
                Interpreter { reader: self, watched: watched.as_deref(), news: &mut scratch.news };
            scanner.feed(&scratch.json, &mut interpreter)?;
            if let (Some(key), Some(end)) = (key, scanner.place()) {
                self.remember(key, &scratch.news[start..], end, scratch.json.len());
            }
        }
        scanner.finish()?;
        Ok(json_bytes)
    }

    fn remembered(&self, key: &Key) -> Option<Arc<Said>> {
        self.memory.lock().expect("invariant: nobody panics here").said.get(key).cloned()
    }

    fn remember(&self, key: Key, news: &[News], end: Place, json_bytes: usize) {
        let mut memory = self.memory.lock().expect("invariant: nobody panics here");
        if memory.once.len() + memory.said.len() > REMEMBERED_MAX {
            *memory = Memory::default();
        }
        if !memory.once.insert(key) {
            memory.once.remove(&key);
            memory.said.insert(key, Arc::new(Said { news: news.to_vec(), end, json_bytes }));
        }
    }

    /// The bit of a node.
    pub(crate) fn slot(&self, id: NodeId) -> Slot {
        if let Some(slot) = self.ids.read().expect("invariant: nobody panics here").slots.get(&id) {
            return *slot;
        }
        let ids = &mut *self.ids.write().expect("invariant: nobody panics here");
        *ids.slots.entry(id).or_insert_with(|| {
            ids.ids.push(id);
            Slot::try_from(ids.ids.len() - 1).expect("invariant: nobody has four billion nodes")
        })
    }

    /// The node of a bit that [`Self::slot`] gave away.
    pub(crate) fn id(&self, slot: Slot) -> NodeId {
        self.ids.read().expect("invariant: nobody panics here").ids[slot as usize]
    }

    /// Waits for something, or for nothing any more.
    pub(crate) fn watch(&self, watched: Option<Watched>) {
        *self.watched.write().expect("invariant: nobody panics here") = watched.map(Arc::new);
    }

    /// What is waited for: its number.
    pub(crate) fn watched(&self) -> u64 {
        let watched = self.watched.read().expect("invariant: nobody panics here");
        watched.as_ref().map_or(0, |watched| watched.number)
    }
}

fn key(piece: &Piece<'_>, place: Place, watched: Option<&Watched>) -> Option<Key> {
    let bytes = piece.bytes.len();
    (piece.is_compressed() && bytes >= REMEMBERED_BYTES_MIN).then(|| Key {
        hash: FixedState::default().hash_one(piece.bytes),
        bytes,
        place,
        watched: watched.map_or(0, |watched| watched.number),
    })
}

/// Turns ids into slots.
struct Interpreter<'a> {
    reader: &'a Reader,
    watched: Option<&'a Watched>,
    news: &'a mut Vec<News>,
}

impl Interpreter<'_> {
    fn push(&mut self, id: NodeId, news: impl FnOnce(Slot) -> News) {
        self.news.push(news(self.reader.slot(id)));
    }

    fn look(&mut self, id: NodeId, raw: &[u8]) {
        let watched = self.watched.filter(|watched| watched.id == id);
        if watched.is_some_and(|watched| says(raw, watched.change)) {
            self.news.push(News::Seen);
        }
    }
}

impl PeerSink for Interpreter<'_> {
    fn keep_alive(&mut self) {
        self.news.push(News::KeepAlive);
    }

    fn node(&mut self, id: NodeId, _: &[u8]) {
        self.push(id, News::Own);
    }

    fn full(&mut self) {
        self.news.push(News::Full);
    }

    fn peer(&mut self, id: NodeId, raw: &[u8]) {
        self.push(id, News::Peer);
        self.look(id, raw);
    }

    fn removed(&mut self, id: NodeId) {
        self.push(id, News::Removed);
    }

    fn patched(&mut self, id: NodeId, raw: &[u8]) {
        self.push(id, News::Touched);
        self.look(id, raw);
    }

    fn online(&mut self, id: NodeId, online: bool) {
        self.push(id, News::Touched);
        let watched = self.watched.filter(|watched| watched.id == id);
        if watched.is_some_and(|watched| watched.change == Change::Online(online)) {
            self.news.push(News::Seen);
        }
    }
}

/// Whether a peer or a patch says that something has changed to this.
fn says(raw: &[u8], change: Change) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Fields {
        online: Option<bool>,
        #[serde(default)]
        endpoints: Option<Vec<SocketAddr>>,
    }
    let Ok(fields) = serde_json::from_slice::<Fields>(raw) else { return false };
    match change {
        Change::Online(online) => fields.online == Some(online),
        Change::Endpoint(endpoint) => {
            fields.endpoints.is_some_and(|endpoints| endpoints.contains(&endpoint))
        }
    }
}
