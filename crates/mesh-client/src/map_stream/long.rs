//! A long message, decoded while it comes: its peers in batches, the rest at its end.

use std::collections::HashSet;

use bytes::{Bytes, BytesMut};
use mesh_wire::{MapResponse, Node, NodeId, PeerChange};
use serde::de::DeserializeOwned;

use super::{FRAME_BYTES_MAX, MapPart, MapStreamError};
use crate::message::Inflater;
use crate::scan::{PeerSink, Scanner};

/// Most entries about peers that a long message may have. Each takes far more room than it has bytes; four times the
/// largest tailnets that are known.
pub const NAMED_PEERS_MAX: usize = 1 << 20;

/// Most bytes of JSON that a long message may have beside its entries about peers, and that one of them may have: they
/// are kept until the message ends.
pub const REST_BYTES_MAX: usize = 64 << 20;

/// JSON that is looked at in one go: some hundred peers, which make a batch.
const PIECE_BYTES: usize = 128 << 10;

/// A message under way.
#[derive(Debug)]
pub(super) struct LongMessage {
    /// Bytes of the message that have come and are not decompressed.
    input: Bytes,
    /// How many more will come.
    missing_bytes: usize,
    inflater: Inflater,
    json_bytes: usize,
    /// The piece of JSON that is looked at, for its room.
    piece: Vec<u8>,
    scanner: Scanner,
    found: Found,
}

impl LongMessage {
    /// A message of which `input` has come and `missing_bytes` are to come.
    pub(super) fn new(compressed: bool, input: Bytes, missing_bytes: usize) -> Self {
        Self {
            input,
            missing_bytes,
            inflater: Inflater::new(compressed),
            json_bytes: 0,
            piece: Vec::new(),
            scanner: Scanner::new(),
            found: Found::default(),
        }
    }

    /// The next part, if enough of the message has been received. The one that is [`Ended::Yes`] is the last.
    pub(super) fn take(
        &mut self,
        received: &mut BytesMut,
    ) -> Result<Option<(MapPart, Ended)>, MapStreamError> {
        loop {
            if let Some(batch) = self.found.take_batch() {
                return Ok(Some((batch, Ended::No)));
            }
            if self.input.is_empty() {
                let taken = self.missing_bytes.min(received.len());
                self.missing_bytes -= taken;
                self.input = received.split_to(taken).freeze();
            }
            if !self.input.is_empty() || !self.inflater.is_idle() {
                self.look_on()?;
            } else if self.missing_bytes == 0 {
                return self.finish().map(|rest| Some((MapPart::Message(rest), Ended::Yes)));
            } else {
                return Ok(None);
            }
        }
    }

    /// Decompresses a piece and notes what is in it.
    fn look_on(&mut self) -> Result<(), MapStreamError> {
        // What was carried is looked at anew: as much again makes that no more than twice the work in all.
        let room = PIECE_BYTES.max(self.scanner.carried_bytes());
        self.piece.clear();
        self.piece.reserve_exact(room);
        self.inflater.fill(&mut self.input, &mut self.piece)?;
        self.json_bytes += self.piece.len();
        if self.json_bytes > FRAME_BYTES_MAX {
            return Err(MapStreamError::TooLong);
        }
        self.scanner.feed(&self.piece, &mut self.found)?;
        if let Some(error) = self.found.error.take() {
            return Err(error);
        }
        if self.scanner.carried_bytes() + self.found.rest.len() > REST_BYTES_MAX {
            return Err(MapStreamError::TooMuchRest);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<Box<MapResponse>, MapStreamError> {
        self.inflater.finish()?;
        self.scanner.finish()?;
        std::mem::take(&mut self.found).into_rest()
    }
}

/// Whether a part is the last of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Yes,
    No,
}

/// What a message has been found to say.
#[derive(Debug, Default)]
struct Found {
    /// Peers of the full list that have not been handed on.
    listed: Vec<Node>,
    /// Changed peers that have not been handed on.
    changed: Vec<Node>,
    /// Whether peers that come are of the full list.
    is_in_list: bool,
    /// Whether the message has a full list: then it is all that counts.
    has_list: bool,
    /// Who was changed. Within a message peers are removed before others are changed, wherever that is said.
    changed_ids: HashSet<NodeId>,
    removed: Vec<NodeId>,
    patches: Vec<PeerChange>,
    /// Entries about peers so far.
    entries: usize,
    /// All other fields, as an object without its end.
    rest: Vec<u8>,
    /// What was wrong first.
    error: Option<MapStreamError>,
}

impl Found {
    fn take_batch(&mut self) -> Option<MapPart> {
        if !self.changed.is_empty() {
            let peers_changed = std::mem::take(&mut self.changed);
            let message = MapResponse { peers_changed, ..MapResponse::default() };
            return Some(MapPart::Message(Box::new(message)));
        }
        let listed = std::mem::take(&mut self.listed);
        (!listed.is_empty()).then_some(MapPart::Peers(listed))
    }

    fn into_rest(mut self) -> Result<Box<MapResponse>, MapStreamError> {
        if self.rest.is_empty() {
            self.rest.push(b'{');
        }
        self.rest.push(b'}');
        let mut rest: Box<MapResponse> = serde_json::from_slice(&self.rest)?;
        if self.has_list {
            rest.peer_seen_change.clear();
            rest.online_change.clear();
        } else {
            self.removed.retain(|id| !self.changed_ids.contains(id));
            rest.peers_removed = self.removed;
            rest.peers_changed_patch = self.patches;
        }
        Ok(rest)
    }

    /// Counts an entry about a peer. Returns whether it is to be looked at.
    fn count(&mut self) -> bool {
        self.entries += 1;
        if self.entries > NAMED_PEERS_MAX {
            self.error.get_or_insert(MapStreamError::TooManyPeers);
        }
        self.error.is_none()
    }

    fn read<T: DeserializeOwned>(&mut self, raw: &[u8]) -> Option<T> {
        let read = serde_json::from_slice(raw);
        read.map_err(|error| self.error.get_or_insert(error.into())).ok()
    }
}

impl PeerSink for Found {
    fn full(&mut self) {
        self.is_in_list = true;
        self.has_list = true;
    }

    fn changes(&mut self) {
        self.is_in_list = false;
    }

    fn peer(&mut self, id: NodeId, raw: &[u8]) {
        if !self.count() {
            return;
        }
        if self.is_in_list {
            let peer = self.read(raw);
            self.listed.extend(peer);
        } else if !self.has_list {
            let peer = self.read(raw);
            self.changed.extend(peer);
            self.changed_ids.insert(id);
        }
    }

    fn removed(&mut self, id: NodeId) {
        if self.count() {
            self.removed.push(id);
        }
    }

    fn patched(&mut self, _: NodeId, raw: &[u8]) {
        if self.count() {
            let patch = self.read(raw);
            self.patches.extend(patch);
        }
    }

    fn field(&mut self, key: &[u8], raw: &[u8]) {
        let before: &[u8] = if self.rest.is_empty() { b"{\"" } else { b",\"" };
        for text in [before, key, b"\":", raw] {
            self.rest.extend_from_slice(text);
        }
    }

    // These are told as fields, too.
    fn keep_alive(&mut self) {}
    fn node(&mut self, _: NodeId, _: &[u8]) {}
    fn online(&mut self, _: NodeId, _: bool) {}
}

#[cfg(test)]
mod tests;
