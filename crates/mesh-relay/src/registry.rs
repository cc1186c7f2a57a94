//! Who is connected.
//!
//! Packets look up the one active connection of a key in a lock-free table. The table follows from the sets
//! of all connections by key, which change under a lock: when a connection joins or leaves, and when one of
//! several with the same key speaks.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use mesh_derp::PeerGoneReason;
use mesh_keys::NodePublic;

use crate::client::{Client, lock};

/// All connections of a relay.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// Key to active connection: the last of each of `sets`.
    active: papaya::HashMap<NodePublic, Arc<Client>>,
    sets: Mutex<HashMap<NodePublic, KeySet>>,
}

/// The connections of one key; never empty.
#[derive(Debug, Default)]
struct KeySet {
    /// The one that spoke last is last, and active.
    connections: Vec<Arc<Client>>,
    /// Whom connections of this key that have left had sent packets to.
    sent_to: HashSet<NodePublic>,
}

impl Registry {
    /// Adds a connection and makes it the active one of its key, if `admits` says so.
    ///
    /// It is asked under the lock that [`Self::cut`] takes: whoever first ceases to admit a key and then cuts
    /// it can be sure that no connection of the key is left.
    pub(crate) fn join(&self, client: &Arc<Client>, admits: impl FnOnce() -> bool) -> bool {
        let mut sets = lock(&self.sets);
        if !admits() {
            return false;
        }
        let set = sets.entry(client.key).or_default();
        if let Some(previous) = set.connections.last() {
            previous.set_active(false);
        }
        set.connections.push(Arc::clone(client));
        self.publish(set);
        true
    }

    /// Makes `client` the active connection of its key, for it has just spoken.
    pub(crate) fn activate(&self, client: &Arc<Client>) {
        let mut sets = lock(&self.sets);
        let Some(set) = sets.get_mut(&client.key) else { return };
        let Some(place) = set.connections.iter().position(|other| Arc::ptr_eq(other, client))
        else {
            return;
        };
        if let Some(previous) = set.connections.last() {
            previous.set_active(false);
        }
        set.connections[place..].rotate_left(1);
        self.publish(set);
    }

    /// Removes a connection that had sent packets to `sent_to`.
    ///
    /// If it was the last of its key, all of them hear that the peer is gone, and those that earlier
    /// connections of the key had sent to. They hear it under the lock: should the peer be back at once, it
    /// cannot send anything before.
    pub(crate) fn leave(&self, client: &Arc<Client>, sent_to: impl Iterator<Item = NodePublic>) {
        let mut sets = lock(&self.sets);
        let Some(set) = sets.get_mut(&client.key) else { return };
        client.set_active(false);
        set.connections.retain(|other| !Arc::ptr_eq(other, client));
        set.sent_to.extend(sent_to);
        if !set.connections.is_empty() {
            self.publish(set);
            return;
        }
        self.active.pin().remove(&client.key);
        let audience = sets.remove(&client.key).unwrap_or_default().sent_to;
        for peer in audience.iter().filter_map(|key| sets.get(key)) {
            for connection in &peer.connections {
                connection.push(|outbox| {
                    outbox.push_gone(client.key, PeerGoneReason::Disconnected);
                });
            }
        }
    }

    /// The connection that packets for `key` go to.
    pub(crate) fn find(&self, key: &NodePublic) -> Option<Arc<Client>> {
        self.active.pin().get(key).cloned()
    }

    /// Cuts all connections of `key`, and says how many there were.
    pub(crate) fn cut(&self, key: &NodePublic) -> usize {
        let sets = lock(&self.sets);
        let connections = sets.get(key).map_or(&[][..], |set| &set.connections);
        for connection in connections {
            connection.cut.cancel();
        }
        connections.len()
    }

    /// Makes the last connection of a set the active one.
    fn publish(&self, set: &KeySet) {
        if let Some(client) = set.connections.last() {
            client.set_active(true);
            self.active.pin().insert(client.key, Arc::clone(client));
        }
    }
}

#[cfg(test)]
mod tests;
