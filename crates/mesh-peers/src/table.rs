//! The table: peers by index, and every way to find one.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::IpAddr;

use foldhash::fast::RandomState;
use jiff::Timestamp;
use mesh_keys::{DiscoPublic, NodePublic};
use mesh_wire::{MapResponse, Node, NodeId, PeerChange};

use crate::index::Index;
use crate::peer::{Changed, Commons, Peer};
use crate::routes::Routes;

/// Most peers that a table takes; those beyond are passed over. Four times the largest tailnets that are known, so that a
/// control server cannot use up the machine's memory.
pub const PEERS_MAX: usize = if cfg!(test) { 64 } else { 1 << 20 };

/// Where a peer is in the table: dense, the same for as long as the peer stays, then another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(u32);

impl PeerIndex {
    #[cfg(test)]
    pub(crate) fn test(index: u32) -> Self {
        Self(index)
    }

    /// The index as a position in tables beside this one.
    pub fn position(self) -> usize {
        self.0 as usize
    }
}

/// What happened to a peer.
///
/// Events are told in the order in which they happened: one of a peer that went comes before one of a peer that got its index.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It is there, at this index.
    Came(PeerIndex),
    /// It is not there any more; its index is free for others.
    Went(PeerIndex, Box<Peer>),
    /// It is not what it was.
    Changed(PeerIndex, Changed),
}

/// All peers of a node.
///
/// Where two peers claim the same key or name, which a sound control server does not say, the last one is found.
#[derive(Debug)]
pub struct PeerTable {
    peers: Vec<Option<Peer>>,
    free: Vec<PeerIndex>,
    commons: Commons,
    by_id: Index<NodeId>,
    by_stable_id: Index<str>,
    by_name: Index<str>,
    by_key: Index<NodePublic>,
    by_disco_key: Index<DiscoPublic>,
    routes: Routes,
}

/// Whom a full list of peers that comes in parts has named so far. One that breaks off is dropped.
#[derive(Debug, Default)]
pub struct PeerList {
    named: HashSet<NodeId, RandomState>,
}

impl Default for PeerTable {
    fn default() -> Self {
        Self::new()
    }
}

impl PeerTable {
    /// A table without peers.
    pub fn new() -> Self {
        Self {
            peers: Vec::new(),
            free: Vec::new(),
            commons: Commons::default(),
            by_id: Index::new(|peer| &peer.id),
            by_stable_id: Index::new(|peer| &peer.stable_id),
            by_name: Index::new(|peer| &peer.name),
            by_key: Index::new(|peer| &peer.key),
            by_disco_key: Index::new(|peer| &peer.disco_key),
            routes: Routes::default(),
        }
    }

    /// Takes out of a message what it says of peers, applies it and tells in `events` what that has changed.
    ///
    /// Order within a message: the full list of peers, or else removed, changed, seen, online, patched. `now` becomes
    /// the last-seen time of peers that are "seen now". Ids that are not known are passed over.
    pub fn apply(&mut self, message: &mut MapResponse, now: Timestamp, events: &mut Vec<Event>) {
        let peers = std::mem::take(&mut message.peers);
        let removed = std::mem::take(&mut message.peers_removed);
        let changed = std::mem::take(&mut message.peers_changed);
        let seen = std::mem::take(&mut message.peer_seen_change);
        let online = std::mem::take(&mut message.online_change);
        let patches = std::mem::take(&mut message.peers_changed_patch);
        if message.keep_alive {
            return;
        }
        if !peers.is_empty() {
            self.replace_all(peers, events);
            return;
        }
        for id in removed {
            self.remove(id, events);
        }
        for node in changed {
            self.upsert(node, events);
        }
        for (id, seen) in seen {
            self.flip(id, events, |peer| peer.last_seen = seen.then_some(now));
        }
        for (id, online) in online {
            self.flip(id, events, |peer| peer.online = Some(online));
        }
        for patch in patches {
            self.patch(patch, events);
        }
    }

    /// Applies a part of a full list of peers. [`Self::finish_list`] follows on the last one.
    pub fn apply_listed(&mut self, list: &mut PeerList, peers: Vec<Node>, events: &mut Vec<Event>) {
        list.named.extend(peers.iter().map(|node| node.id));
        for node in peers {
            self.upsert(node, events);
        }
    }

    /// Forgets the peers that a full list has not named.
    pub fn finish_list(&mut self, list: &PeerList, events: &mut Vec<Event>) {
        let gone = self.iter().map(|(_, peer)| peer.id).filter(|id| !list.named.contains(id));
        for id in gone.collect::<Vec<_>>() {
            self.remove(id, events);
        }
    }

    /// Forgets all peers.
    pub fn clear(&mut self, events: &mut Vec<Event>) {
        self.replace_all(Vec::new(), events);
    }

    /// How many peers there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The peer at an index.
    pub fn get(&self, index: PeerIndex) -> Option<&Peer> {
        self.peers.get(index.position())?.as_ref()
    }

    /// All peers, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (PeerIndex, &Peer)> {
        (0..)
            .map(PeerIndex)
            .zip(&self.peers)
            .filter_map(|(index, peer)| Some((index, peer.as_ref()?)))
    }

    /// The peer with this id.
    pub fn by_id(&self, id: NodeId) -> Option<PeerIndex> {
        self.by_id.get(&id, &self.peers)
    }

    /// The peer with this stable id.
    pub fn by_stable_id(&self, stable_id: &str) -> Option<PeerIndex> {
        self.by_stable_id.get(stable_id, &self.peers)
    }

    /// The peer with this full name, with its trailing dot and in the case in which the control server writes it.
    pub fn by_name(&self, name: &str) -> Option<PeerIndex> {
        self.by_name.get(name, &self.peers)
    }

    /// The peer with this WireGuard key.
    pub fn by_key(&self, key: &NodePublic) -> Option<PeerIndex> {
        self.by_key.get(key, &self.peers)
    }

    /// The peer with this disco key.
    pub fn by_disco_key(&self, key: &DiscoPublic) -> Option<PeerIndex> {
        self.by_disco_key.get(key, &self.peers)
    }

    /// The peer to which an address is routed: whose own it is, or who serves the longest prefix that holds it. Routes
    /// of exit nodes do not count.
    pub fn by_address(&self, address: IpAddr) -> Option<PeerIndex> {
        self.routes.get(address)
    }

    fn replace_all(&mut self, peers: Vec<Node>, events: &mut Vec<Event>) {
        let list = PeerList { named: peers.iter().map(|node| node.id).collect() };
        self.finish_list(&list, events);
        for node in peers {
            self.upsert(node, events);
        }
    }

    fn upsert(&mut self, node: Node, events: &mut Vec<Event>) {
        let peer = Peer::new(node, &mut self.commons);
        match self.by_id(peer.id) {
            Some(index) => self.replace(index, peer, events),
            None if self.len() < PEERS_MAX => self.insert(peer, events),
            None => {}
        }
    }

    fn patch(&mut self, patch: PeerChange, events: &mut Vec<Event>) {
        let Some(index) = self.by_id(patch.node_id) else { return };
        let Some(old) = &self.peers[index.position()] else { return };
        let new = old.patched(patch, &mut self.commons);
        self.replace(index, new, events);
    }

    /// Changes when a peer was there, by which it is not found.
    fn flip(&mut self, id: NodeId, events: &mut Vec<Event>, change: impl FnOnce(&mut Peer)) {
        let Some(index) = self.by_id(id) else { return };
        let Some(peer) = &mut self.peers[index.position()] else { return };
        let old = (peer.online, peer.last_seen);
        change(peer);
        if old != (peer.online, peer.last_seen) {
            let changed = Changed { online: old.0 != peer.online, ..Changed::default() };
            events.push(Event::Changed(index, changed));
        }
    }

    fn insert(&mut self, peer: Peer, events: &mut Vec<Event>) {
        let index = self.free.pop().unwrap_or_else(|| {
            let next = u32::try_from(self.peers.len());
            self.peers.push(None);
            PeerIndex(next.expect("invariant: there are no more than PEERS_MAX peers"))
        });
        self.index(index, &peer);
        self.peers[index.position()] = Some(peer);
        events.push(Event::Came(index));
    }

    fn remove(&mut self, id: NodeId, events: &mut Vec<Event>) {
        let Some(index) = self.by_id(id) else { return };
        let Some(peer) = self.peers[index.position()].take() else { return };
        self.unindex(index, &peer);
        self.free.push(index);
        events.push(Event::Went(index, Box::new(peer)));
    }

    fn replace(&mut self, index: PeerIndex, new: Peer, events: &mut Vec<Event>) {
        let Some(old) = self.peers[index.position()].take() else { return };
        let changed = new.changed_since(&old);
        if changed.is_some() {
            self.reindex(index, &old, &new);
        }
        self.peers[index.position()] = Some(new);
        events.extend(changed.map(|changed| Event::Changed(index, changed)));
    }

    fn index(&mut self, index: PeerIndex, peer: &Peer) {
        let peers = &self.peers;
        self.by_id.insert(&peer.id, index, peers);
        self.by_stable_id.insert(&peer.stable_id, index, peers);
        self.by_name.insert(&peer.name, index, peers);
        self.by_key.insert(&peer.key, index, peers);
        if peer.disco_key.non_zero().is_some() {
            self.by_disco_key.insert(&peer.disco_key, index, peers);
        }
        for prefix in peer.routed() {
            self.routes.claim(prefix, index);
        }
    }

    fn unindex(&mut self, index: PeerIndex, peer: &Peer) {
        self.by_id.remove(&peer.id, index);
        self.by_stable_id.remove(&peer.stable_id, index);
        self.by_name.remove(&peer.name, index);
        self.by_key.remove(&peer.key, index);
        self.by_disco_key.remove(&peer.disco_key, index);
        for prefix in peer.routed() {
            self.routes.give_up(prefix, index);
        }
    }

    /// Mends the indexes that a changed peer needs mended: mostly none.
    fn reindex(&mut self, index: PeerIndex, old: &Peer, new: &Peer) {
        let peers = &self.peers;
        rename(&mut self.by_stable_id, &*old.stable_id, Some(&*new.stable_id), index, peers);
        rename(&mut self.by_name, &*old.name, Some(&*new.name), index, peers);
        rename(&mut self.by_key, &old.key, Some(&new.key), index, peers);
        let disco_key = new.disco_key.non_zero();
        rename(&mut self.by_disco_key, &old.disco_key, disco_key.as_ref(), index, peers);
        if old.addresses != new.addresses || old.allowed_ips != new.allowed_ips {
            for prefix in old.routed() {
                self.routes.give_up(prefix, index);
            }
            for prefix in new.routed() {
                self.routes.claim(prefix, index);
            }
        }
    }
}

fn rename<K: Eq + Hash + ?Sized>(
    names: &mut Index<K>,
    old: &K,
    new: Option<&K>,
    index: PeerIndex,
    peers: &[Option<Peer>],
) {
    if new == Some(old) {
        return;
    }
    names.remove(old, index);
    if let Some(new) = new {
        names.insert(new, index, peers);
    }
}

#[cfg(test)]
mod tests;
