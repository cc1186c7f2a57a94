//! Who is connected to one relay, in the most naive way: lists that are searched.

use std::collections::{BTreeMap, BTreeSet};

use crate::packet::{ConnectionId, Key};

/// Who can be reached from one relay.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    /// The connections of each key; who spoke last is last, and gets the packets.
    connections: BTreeMap<Key, Vec<ConnectionId>>,
    /// The trunks to relays that have the key, the oldest first.
    trunks: BTreeMap<Key, Vec<ConnectionId>>,
    /// Whom a key has sent to, since it last was nowhere.
    sent_to: BTreeMap<Key, BTreeSet<Key>>,
}

impl Presence {
    pub(crate) fn join(&mut self, key: Key, id: ConnectionId) {
        self.connections.entry(key).or_default().push(id);
    }

    /// Notes that a connection has spoken.
    pub(crate) fn speak(&mut self, key: Key, id: ConnectionId) {
        let connections = self.connections.get_mut(&key).expect("who speaks is there");
        connections.retain(|other| *other != id);
        connections.push(id);
    }

    /// Notes that the relay at the end of a trunk has a key.
    pub(crate) fn add_trunk(&mut self, key: Key, id: ConnectionId) {
        let trunks = self.trunks.entry(key).or_default();
        if !trunks.contains(&id) {
            trunks.push(id);
        }
    }

    /// Who of this relay gets the packets for a key.
    pub(crate) fn active(&self, key: Key) -> Option<ConnectionId> {
        self.connections(key).last().copied()
    }

    /// The trunk that packets for a key take which is not here.
    pub(crate) fn trunk(&self, key: Key) -> Option<ConnectionId> {
        self.trunks.get(&key)?.first().copied()
    }

    pub(crate) fn is_reached(&self, key: Key) -> bool {
        self.active(key).is_some() || self.trunk(key).is_some()
    }

    /// All connections of a key.
    pub(crate) fn connections(&self, key: Key) -> &[ConnectionId] {
        self.connections.get(&key).map_or(&[], Vec::as_slice)
    }

    /// All keys that have connections here.
    pub(crate) fn keys(&self) -> BTreeSet<Key> {
        self.connections.keys().copied().collect()
    }

    /// All keys that a trunk leads to.
    pub(crate) fn keys_by(&self, trunk: ConnectionId) -> BTreeSet<Key> {
        let by_it = self.trunks.iter().filter(|(_, trunks)| trunks.contains(&trunk));
        by_it.map(|(key, _)| *key).collect()
    }

    /// Notes that a packet of one key goes to another.
    pub(crate) fn send(&mut self, from: Key, to: Key) {
        self.sent_to.entry(from).or_default().insert(to);
    }

    /// Removes one way to a key. If it was the last, tells whose connections are to hear it.
    pub(crate) fn remove(&mut self, key: Key, id: ConnectionId) -> Vec<ConnectionId> {
        for ways in [&mut self.connections, &mut self.trunks] {
            if let Some(ids) = ways.get_mut(&key) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    ways.remove(&key);
                }
            }
        }
        if self.is_reached(key) {
            return Vec::new();
        }
        let sent_to = self.sent_to.remove(&key).unwrap_or_default();
        sent_to.iter().flat_map(|to| self.connections(*to)).copied().collect()
    }
}
