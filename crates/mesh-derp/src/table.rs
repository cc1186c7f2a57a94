//! Who is connected.
//!
//! Packets look up the way to a key in a lock-free table. The table follows from the sets of all connections
//! by key, which change under a lock: when a connection joins or leaves, and when one of several with the
//! same key speaks.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use mesh_keys::NodePublic;

use crate::client::{Client, lock};
use crate::frame::PeerGoneReason;

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
    /// Whether the relay ends, and nobody joins any more.
    is_closed: bool,
}

/// The connections of one key; never empty.
#[derive(Debug, Default)]
struct KeySet {
    /// The one that spoke last is last, and active.
    connections: Vec<Arc<Client>>,
    /// Whom connections of this key that have left had sent packets to.
    sent_to: HashSet<NodePublic>,
}

impl KeySet {
    fn place_of(&self, client: &Arc<Client>) -> Option<usize> {
        self.connections.iter().position(|other| Arc::ptr_eq(other, client))
    }
}

/// The way to a key, for as long as it is the best one.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) client: Arc<Client>,
    is_stale: AtomicBool,
}

impl Route {
    /// Whether another way has taken its place, or none. Who remembers a route looks here before each use.
    pub(crate) fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Acquire)
    }
}

impl Table {
    /// Adds a connection of `key` and makes it the active one of its key, if `admits` says so.
    ///
    /// It is asked under the lock that [`Self::cut`] takes: whoever first ceases to admit a key and then cuts
    /// it can be sure that no connection of the key is left.
    pub(crate) fn join(
        &self,
        key: NodePublic,
        admits: impl FnOnce() -> bool,
    ) -> Option<Arc<Client>> {
        let mut sets = lock(&self.sets);
        if sets.is_closed || !admits() {
            return None;
        }
        let client = Arc::new(Client::new(key));
        let set = sets.by_key.entry(key).or_default();
        if let Some(previous) = set.connections.last() {
            previous.set_active(false);
        }
        set.connections.push(Arc::clone(&client));
        self.publish(set);
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
        self.publish(set);
    }

    /// Removes a connection that had sent packets to `sent_to`.
    ///
    /// If it was the last of its key, all of them hear that the peer is gone, and those that earlier
    /// connections of the key had sent to. They hear it under the lock: should the peer be back at once, it
    /// cannot send anything before.
    pub(crate) fn leave(&self, client: &Arc<Client>, sent_to: impl Iterator<Item = NodePublic>) {
        let mut sets = lock(&self.sets);
        let key = client.key();
        let Some(set) = sets.by_key.get_mut(&key) else { return };
        let Some(place) = set.place_of(client) else { return };
        client.set_active(false);
        set.connections.remove(place);
        set.sent_to.extend(sent_to);
        if !set.connections.is_empty() {
            self.publish(set);
            return;
        }
        retire(self.routes.pin().remove(&key));
        let audience = sets.by_key.remove(&key).unwrap_or_default().sent_to;
        for peer in audience.iter().filter_map(|key| sets.by_key.get(key)) {
            for connection in &peer.connections {
                connection.push(|outbox| outbox.push_gone(key, PeerGoneReason::Disconnected));
            }
        }
    }

    /// The way that packets for `key` take.
    pub(crate) fn find(&self, key: &NodePublic) -> Option<Arc<Route>> {
        self.routes.pin().get(key).cloned()
    }

    /// Whether a client with this key is connected.
    pub fn is_connected(&self, key: &NodePublic) -> bool {
        self.routes.pin().contains_key(key)
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

    /// Cuts all connections, and lets nobody join any more.
    pub fn close(&self) {
        let mut sets = lock(&self.sets);
        sets.is_closed = true;
        for connection in sets.by_key.values().flat_map(|set| &set.connections) {
            connection.cut();
        }
    }

    /// Makes the last connection of a set the active one.
    fn publish(&self, set: &KeySet) {
        if let Some(client) = set.connections.last() {
            client.set_active(true);
            let route = Route { client: Arc::clone(client), is_stale: AtomicBool::new(false) };
            retire(self.routes.pin().insert(client.key(), Arc::new(route)));
        }
    }
}

/// Tells all who remember a route that it leads nowhere any more.
fn retire(route: Option<&Arc<Route>>) {
    if let Some(route) = route {
        route.is_stale.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
