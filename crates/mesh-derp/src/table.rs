//! Who is connected.
//!
//! Packets look up the way to a key in a lock-free table. The table follows from the sets of all connections
//! by key, which change under a lock: when a connection joins or leaves, and when one of several with the
//! same key speaks. Where another relay of the mesh has a key, its way leads there, unless the key is here too.

mod mesh;
mod route;

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::{Arc, Mutex};

use mesh_keys::NodePublic;

use crate::client::{Client, lock};
use crate::frame::PeerGoneReason;
use crate::peer_present::PeerPresent;

pub(crate) use route::Route;

/// Keys that one has sent packets to before it is looked for some to forget.
const SENT_TO_MIN: usize = 50;

/// All connections of a relay.
#[derive(Debug, Default)]
pub struct Table {
    /// Key to the way that packets for it take.
    routes: papaya::HashMap<NodePublic, Arc<Route>>,
    sets: Mutex<Sets>,
}

#[derive(Debug, Default)]
struct Sets {
    by_key: HashMap<NodePublic, KeySet>,
    /// Who is told of each client that comes and goes.
    watchers: Vec<Arc<Client>>,
}

/// What is known of one key, here or elsewhere: it has connections, or forwarders, or both.
#[derive(Debug, Default)]
struct KeySet {
    /// The one that spoke last is last, and active.
    connections: Vec<Arc<Client>>,
    /// Our connections to the relays that have the key, the oldest first.
    forwarders: Vec<Arc<Client>>,
    /// Whom connections of this key that have left had sent packets to, and whom it has from other relays.
    sent_to: HashSet<NodePublic>,
}

impl KeySet {
    fn place_of(&self, client: &Arc<Client>) -> Option<usize> {
        self.connections.iter().position(|other| Arc::ptr_eq(other, client))
    }
}

impl Sets {
    /// Notes that `src` has sent packets to these keys. When room runs out, keys are forgotten that have left since: if they
    /// come back, they have heard nothing of `src` yet.
    fn note_sent(&mut self, src: &NodePublic, keys: impl IntoIterator<Item = NodePublic>) {
        let Some(set) = self.by_key.get_mut(src) else { return };
        let mut sent_to = mem::take(&mut set.sent_to);
        if sent_to.len() == sent_to.capacity() && sent_to.len() >= SENT_TO_MIN {
            sent_to.retain(|key| self.by_key.contains_key(key));
            // Twice as many until it is looked again.
            sent_to.reserve(sent_to.len());
        }
        sent_to.extend(keys);
        if let Some(set) = self.by_key.get_mut(src) {
            set.sent_to = sent_to;
        }
    }
}

impl Table {
    /// Adds a connection of `peer` and makes it the active one of its key, if `admits` says so.
    ///
    /// It is asked under the lock that [`Self::cut`] takes: whoever first ceases to admit a key and then cuts
    /// it can be sure that no connection of the key is left.
    pub(crate) fn join(
        &self,
        peer: PeerPresent,
        admits: impl FnOnce() -> bool,
    ) -> Option<Arc<Client>> {
        let mut sets = lock(&self.sets);
        if !admits() {
            return None;
        }
        let client = Arc::new(Client::new(peer));
        let set = sets.by_key.entry(peer.key).or_default();
        if let Some(previous) = set.connections.last() {
            previous.set_active(false);
        }
        set.connections.push(Arc::clone(&client));
        self.publish(&peer.key, set);
        sets.tell_watchers(peer.key, Some(peer));
        Some(client)
    }

    /// Makes `client` the active connection of its key, for it has just spoken.
    pub(crate) fn activate(&self, client: &Arc<Client>) {
        let mut sets = lock(&self.sets);
        let Some(set) = sets.by_key.get_mut(&client.key()) else { return };
        let Some(place) = set.place_of(client) else { return };
        if let Some(previous) = set.connections.last() {
            previous.set_active(false);
        }
        set.connections[place..].rotate_left(1);
        self.publish(&client.key(), set);
    }

    /// Removes a connection that had sent packets to `sent_to`.
    ///
    /// If it was the last of its key, and no other relay has the key, all of them hear that the peer is gone,
    /// and those that earlier connections of the key had sent to. They hear it under the lock: should the peer be
    /// back at once, it cannot send anything before.
    pub(crate) fn leave(&self, client: &Arc<Client>, sent_to: impl Iterator<Item = NodePublic>) {
        let mut sets = lock(&self.sets);
        let key = client.key();
        let Some(set) = sets.by_key.get_mut(&key) else { return };
        let Some(place) = set.place_of(client) else { return };
        client.set_active(false);
        set.connections.remove(place);
        let is_last = set.connections.is_empty();
        sets.note_sent(&key, sent_to);
        self.update(&key, &mut sets);
        if is_last {
            sets.tell_watchers(key, None);
        }
        if client.is_mesh() {
            sets.watchers.retain(|watcher| !Arc::ptr_eq(watcher, client));
        }
    }

    /// The way that packets for `key` take.
    pub(crate) fn find(&self, key: &NodePublic) -> Option<Arc<Route>> {
        self.routes.pin().get(key).cloned()
    }

    /// Whether a client with this key is connected.
    pub fn is_connected(&self, key: &NodePublic) -> bool {
        self.routes.pin().get(key).is_some_and(|route| !route.leads_away())
    }

    /// The keys of all clients that are connected, in no order.
    pub fn keys(&self) -> Vec<NodePublic> {
        let sets = lock(&self.sets);
        let connected = sets.by_key.iter().filter(|(_, set)| !set.connections.is_empty());
        connected.map(|(key, _)| *key).collect()
    }

    /// Cuts all connections of `key`, and says how many there were.
    pub fn cut(&self, key: &NodePublic) -> usize {
        let sets = lock(&self.sets);
        let connections = sets.by_key.get(key).map_or(&[][..], |set| &set.connections);
        for connection in connections {
            connection.cut();
        }
        connections.len()
    }

    /// How many keys it is known of that `src` has sent packets to them.
    #[cfg(test)]
    pub(crate) fn sent_to(&self, src: &NodePublic) -> usize {
        lock(&self.sets).by_key.get(src).map_or(0, |set| set.sent_to.len())
    }

    /// Finds the way to a key anew after one of its ways has gone. If none is left, those hear that it is gone
    /// whom it had sent packets to.
    fn update(&self, key: &NodePublic, sets: &mut Sets) {
        let Some(set) = sets.by_key.get(key) else { return };
        if self.publish(key, set) {
            return;
        }
        Route::retire(self.routes.pin().remove(key));
        let audience = sets.by_key.remove(key).unwrap_or_default().sent_to;
        for peer in audience.iter().filter_map(|key| sets.by_key.get(key)) {
            for connection in &peer.connections {
                connection.push(|outbox| outbox.push_gone(*key, PeerGoneReason::Disconnected));
            }
        }
    }

    /// Makes the last connection of a key the active one, or leads to the relay that has had it for longest.
    /// Returns whether there is any way.
    fn publish(&self, key: &NodePublic, set: &KeySet) -> bool {
        let route = if let Some(client) = set.connections.last() {
            client.set_active(true);
            Route::here(client)
        } else if let Some(relay) = set.forwarders.first() {
            Route::away(relay)
        } else {
            return false;
        };
        Route::retire(self.routes.pin().insert(*key, Arc::new(route)));
        true
    }
}

#[cfg(test)]
mod tests;
