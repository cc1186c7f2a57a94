//! Which nodes a relay serves, and which it has just ceased to serve: for our own relay, and for those that ask us.

use std::sync::Arc;

use mesh_keys::NodePublic;
use mesh_model::{Node, NodeId, Timestamp};
use mesh_relay::Relay;
use mesh_state::Snapshot;
use mesh_store::{Handle, Span};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Whether a relay serves the node with this key: while it is one of ours whose key has not expired.
pub fn is_served(snapshot: &Snapshot, key: &NodePublic, now: Timestamp) -> bool {
    snapshot.tailnet.node_by_key(key).is_some_and(|node| !node.is_expired(now))
}

/// The keys of the nodes that relays serve, with a cursor that follows their changes.
#[derive(Debug)]
pub struct ServedKeys {
    store: Handle,
    epochs: watch::Receiver<u64>,
    /// What the keys are that are known up to here.
    seen: Arc<Snapshot>,
}

/// How the keys have changed. None is in both lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyChanges {
    /// Keys that are served now, and were not.
    pub admitted: Vec<NodePublic>,
    /// Keys that were served, and are not any more: their nodes were deleted, have expired or changed their key.
    pub removed: Vec<NodePublic>,
}

impl ServedKeys {
    /// Starts at the store's newest epoch.
    pub fn new(store: Handle) -> Self {
        // In this order no epoch is missed.
        let epochs = store.subscribe();
        let seen = store.snapshot();
        Self { store, epochs, seen }
    }

    /// All of them at the cursor.
    pub fn all(&self) -> Vec<NodePublic> {
        served(&self.seen, self.seen.tailnet.nodes()).collect()
    }

    /// Waits for a change, however many epochs it takes, and moves the cursor behind it; `None` once the store has
    /// ended. Whoever stops waiting misses nothing.
    ///
    /// A key that runs out is a change like others: the store publishes an epoch for it.
    pub async fn changed(&mut self) -> Option<KeyChanges> {
        loop {
            self.epochs.changed().await.ok()?;
            let (to, touched) = self.touched();
            let changes = changes(&self.seen, &to, &touched);
            self.seen = to;
            if changes != KeyChanges::default() {
                return Some(changes);
            }
        }
    }

    /// The newest snapshot, and the nodes that it may have otherwise than the last one seen.
    fn touched(&self) -> (Arc<Snapshot>, Vec<NodeId>) {
        if let Some(Span { to, changes }) = self.store.since(self.seen.epoch) {
            let touched = changes.nodes.iter().map(NodeId).collect();
            return (to, touched);
        }
        let to = self.store.snapshot();
        let nodes = self.seen.tailnet.nodes().chain(to.tailnet.nodes());
        let touched = nodes.map(|node| node.id).collect();
        (to, touched)
    }
}

/// Cuts nodes off our own relay as soon as it does not serve them any more, from the call on until `stop`.
pub fn run_cutter(
    relay: Relay,
    store: Handle,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let mut keys = ServedKeys::new(store);
    async move {
        while let Some(Some(changes)) = stop.run_until_cancelled(keys.changed()).await {
            for key in &changes.removed {
                relay.disconnect(key);
            }
        }
    }
}

/// The keys of those nodes of a snapshot that are served.
fn served<'a>(
    snapshot: &Snapshot,
    nodes: impl Iterator<Item = &'a Arc<Node>>,
) -> impl Iterator<Item = NodePublic> {
    nodes.filter(|node| !node.is_expired(snapshot.at)).map(|node| node.node_key)
}

/// What touched nodes change about the keys that are served.
fn changes(from: &Snapshot, to: &Snapshot, touched: &[NodeId]) -> KeyChanges {
    let before = touched.iter().filter_map(|id| from.tailnet.node(*id));
    let after = touched.iter().filter_map(|id| to.tailnet.node(*id));
    KeyChanges {
        admitted: served(to, after).filter(|key| !is_served(from, key, from.at)).collect(),
        removed: served(from, before).filter(|key| !is_served(to, key, to.at)).collect(),
    }
}

#[cfg(test)]
mod tests;
