//! Peers by one of their keys, in little room: the keys stay with the peers, here is only where those are.

use std::hash::{BuildHasher as _, Hash};
use std::num::NonZeroU32;

use foldhash::fast::RandomState;

use crate::peer::Peer;
use crate::table::PeerIndex;

/// Slots of the smallest table that has any.
const SLOTS_MIN: usize = 8;

/// Finds peers by the key that `key_of` tells of each. A key has one peer: the last that it was given to.
///
/// A hash table with linear probing. What follows on a slot that becomes free moves up, so that a search ends at the first
/// free slot, however many came and went.
#[derive(Debug)]
pub(crate) struct Index<K: ?Sized> {
    key_of: fn(&Peer) -> &K,
    hasher: RandomState,
    /// None, or a power of two of them, of which a quarter is free.
    slots: Vec<Option<Entry>>,
    taken: usize,
}

/// Who has a key, and the key's hash: most others are told apart without a look at their peers.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Entry {
    /// Not zero, so that a free slot takes no more room.
    hash: NonZeroU32,
    index: PeerIndex,
}

impl<K: Hash + Eq + ?Sized> Index<K> {
    pub(crate) fn new(key_of: fn(&Peer) -> &K) -> Self {
        Self { key_of, hasher: RandomState::default(), slots: Vec::new(), taken: 0 }
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.taken
    }

    /// The peer with a key.
    pub(crate) fn get(&self, key: &K, peers: &[Option<Peer>]) -> Option<PeerIndex> {
        let slot = self.slot_of_key(self.hash(key), key, peers)?;
        self.slots[slot].map(|entry| entry.index)
    }

    /// Gives a key to a peer, which need not be among `peers` yet.
    pub(crate) fn insert(&mut self, key: &K, index: PeerIndex, peers: &[Option<Peer>]) {
        let hash = self.hash(key);
        if let Some(slot) = self.slot_of_key(hash, key, peers) {
            self.slots[slot] = Some(Entry { hash, index });
            return;
        }
        if (self.taken + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        self.put(Entry { hash, index });
        self.taken += 1;
    }

    /// Takes a key from a peer, unless it was given to another since.
    pub(crate) fn remove(&mut self, key: &K, index: PeerIndex) {
        let entry = Entry { hash: self.hash(key), index };
        let Some(mut free) = self.probe(entry.hash).find(|slot| self.slots[*slot] == Some(entry))
        else {
            return;
        };
        self.taken -= 1;
        let mut next = self.after(free);
        while let Some(entry) = self.slots[next] {
            // It may move up unless that is before where a search for it begins.
            let begin = self.begin(entry.hash);
            if self.distance(begin, next) >= self.distance(free, next) {
                self.slots[free] = Some(entry);
                free = next;
            }
            next = self.after(next);
        }
        self.slots[free] = None;
    }

    #[expect(clippy::cast_possible_truncation, reason = "half of a hash is one, too")]
    fn hash(&self, key: &K) -> NonZeroU32 {
        NonZeroU32::MIN | self.hasher.hash_one(key) as u32
    }

    fn slot_of_key(&self, hash: NonZeroU32, key: &K, peers: &[Option<Peer>]) -> Option<usize> {
        self.probe(hash).find(|slot| {
            self.slots[*slot].is_some_and(|entry| {
                let peer = peers.get(entry.index.position()).and_then(Option::as_ref);
                entry.hash == hash && peer.is_some_and(|peer| (self.key_of)(peer) == key)
            })
        })
    }

    fn grow(&mut self) {
        let slots = vec![None; (2 * self.slots.len()).max(SLOTS_MIN)];
        for entry in std::mem::replace(&mut self.slots, slots).into_iter().flatten() {
            self.put(entry);
        }
    }

    /// Puts an entry into the first free slot from where a search for it begins.
    fn put(&mut self, entry: Entry) {
        let mut slot = self.begin(entry.hash);
        while self.slots[slot].is_some() {
            slot = self.after(slot);
        }
        self.slots[slot] = Some(entry);
    }

    /// The slots in which an entry of this hash may be.
    fn probe(&self, hash: NonZeroU32) -> impl Iterator<Item = usize> + '_ {
        let first = (!self.slots.is_empty()).then(|| self.begin(hash));
        let taken = |slot: &usize| self.slots[*slot].is_some();
        std::iter::successors(first, |slot| Some(self.after(*slot))).take_while(taken)
    }

    /// Where a search for this hash begins: its lowest bit is always set.
    fn begin(&self, hash: NonZeroU32) -> usize {
        (hash.get() >> 1) as usize & (self.slots.len() - 1)
    }

    fn after(&self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }

    /// How many steps it is from one slot on to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mesh_wire::{Node, NodeId};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::peer::Commons;

    fn peers() -> Vec<Option<Peer>> {
        let peer = |id: u64| {
            // Two peers each have the same key.
            let node = Node { id: NodeId(id / 2), ..Node::default() };
            Some(Peer::new(node, &mut Commons::default()))
        };
        (0..200).map(peer).collect()
    }

    proptest! {
        /// Beside a map that holds the keys.
        #[test]
        fn key_has_the_last_peer_that_it_was_given_to(events in vec((any::<bool>(), 0..200_u32), 1..400)) {
            let peers = peers();
            let (mut index, mut model) = (Index::new(|peer| &peer.id), BTreeMap::new());
            for (is_insert, number) in events {
                let (key, at) = (NodeId(u64::from(number / 2)), PeerIndex::test(number));
                if is_insert {
                    index.insert(&key, at, &peers);
                    model.insert(key, at);
                } else {
                    index.remove(&key, at);
                    if model.get(&key) == Some(&at) {
                        model.remove(&key);
                    }
                }
                prop_assert_eq!(index.len(), model.len());
            }
            for key in (0..100).map(NodeId) {
                prop_assert_eq!(index.get(&key, &peers), model.get(&key).copied());
            }
        }
    }

    #[test]
    fn an_entry_takes_little_room() {
        assert_eq!(size_of::<Option<Entry>>(), 8);
    }
}
