//! What other relays of the mesh are told of our clients, and what they tell us of theirs.

use std::sync::Arc;

use mesh_keys::NodePublic;

use super::{Sets, Table};
use crate::client::{Client, lock};
use crate::peer_present::PeerPresent;

/// Clients that have left of which a watcher may be behind. One that is further behind does not read: it is cut,
/// and begins anew when it comes back.
const WATCHER_BEHIND_MAX: usize = 16_384;

impl Table {
    /// Tells `watcher` who is connected, and from then on who comes and goes.
    pub(crate) fn watch(&self, watcher: &Arc<Client>) {
        let mut sets = lock(&self.sets);
        let waiting_max = sets.waiting_max();
        watcher.push(|outbox| {
            for client in sets.by_key.values().filter_map(|set| set.connections.last()) {
                outbox.push_presence(client.key(), Some(client.peer()), waiting_max);
            }
        });
        if !sets.watchers.iter().any(|other| Arc::ptr_eq(other, watcher)) {
            sets.watchers.push(Arc::clone(watcher));
        }
    }

    /// Leads packets for `key` over `relay`, our connection to a relay that has it, if it is neither here nor
    /// at a relay that has had it for longer.
    pub(crate) fn add_forwarder(&self, key: NodePublic, relay: &Arc<Client>) {
        let mut sets = lock(&self.sets);
        let set = sets.by_key.entry(key).or_default();
        if set.forwarders.iter().any(|other| Arc::ptr_eq(other, relay)) {
            return;
        }
        set.forwarders.push(Arc::clone(relay));
        if set.connections.is_empty() && set.forwarders.len() == 1 {
            self.publish(&key, set);
        }
    }

    /// Ceases to lead packets for `key` over `relay`.
    pub(crate) fn remove_forwarder(&self, key: &NodePublic, relay: &Arc<Client>) {
        let mut sets = lock(&self.sets);
        let Some(set) = sets.by_key.get_mut(key) else { return };
        let place = set.forwarders.iter().position(|other| Arc::ptr_eq(other, relay));
        let Some(place) = place else { return };
        set.forwarders.remove(place);
        if set.connections.is_empty() && place == 0 {
            self.update(key, &mut sets);
        }
    }

    /// Remembers that a client of another relay has sent packets to one of this, who is to hear when it is gone.
    pub(crate) fn note_sent(&self, src: &NodePublic, dst: NodePublic) {
        lock(&self.sets).note_sent(src, [dst]);
    }
}

impl Sets {
    /// Tells those that watch that `key` has come or left (`None`).
    pub(super) fn tell_watchers(&self, key: NodePublic, peer: Option<PeerPresent>) {
        let waiting_max = self.waiting_max();
        for watcher in &self.watchers {
            let keeps_up = watcher.push(|outbox| outbox.push_presence(key, peer, waiting_max));
            if keeps_up == Some(false) {
                watcher.cut();
            }
        }
    }

    /// How many keys may wait to be told to a watcher.
    fn waiting_max(&self) -> usize {
        self.by_key.len() + WATCHER_BEHIND_MAX
    }
}

#[cfg(test)]
mod tests;
