//! Asks the nodes of a region, and whether packets pass from each to each other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use mesh_derp_client::Event;
use mesh_keys::NodePublic;
use mesh_wire::{DerpNode, DerpRegion};
use rustls::RootCertStore;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::probe::{Session, probe};
use super::report::RegionReport;
use super::verdict::Probe;

/// How long packets may take: nodes tell each other of clients, but not at once.
const MESH_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a packet that has not arrived is sent again.
const SEND_EVERY: Duration = Duration::from_millis(250);

/// Nodes of a region that are tried against each other.
const MESH_NODES_MAX: usize = 16;

/// What is sent from node to node.
const PACKET: Bytes = Bytes::from_static(b"meshcontrol derp-map check");

/// Asks the nodes, as many at once as there are `turns` for, and calls `done` after each.
pub(super) async fn check_region(
    region: DerpRegion,
    roots: Arc<RootCertStore>,
    turns: Arc<Semaphore>,
    done: impl Fn(&DerpNode, &Probe) + Clone + Send + 'static,
) -> RegionReport {
    let mut tasks = JoinSet::new();
    for (place, node) in region.nodes.iter().cloned().enumerate() {
        let (roots, turns, done) = (Arc::clone(&roots), Arc::clone(&turns), done.clone());
        tasks.spawn(async move {
            let _turn = turns.acquire().await;
            let (probed, session) = probe(&node, roots).await;
            done(&node, &probed);
            (place, probed, session.map(|session| (node.name, session)))
        });
    }
    let mut asked = tasks.join_all().await;
    asked.sort_by_key(|(place, ..)| *place);
    let (probes, sessions): (Vec<_>, Vec<_>) =
        asked.into_iter().map(|(_, probed, session)| (probed, session)).unzip();
    let sessions: Vec<_> = sessions.into_iter().flatten().take(MESH_NODES_MAX).collect();
    let apart = if sessions.len() < 2 { None } else { Some(find_apart(sessions).await) };
    RegionReport::new(&region, &probes, apart.as_deref())
}

/// Sends a packet from each node to each other, and says which have not arrived.
async fn find_apart(sessions: Vec<(String, Session)>) -> Vec<(String, String)> {
    let peers: Vec<_> =
        sessions.iter().map(|(name, session)| (name.clone(), session.key)).collect();
    let left = Arc::new(AtomicUsize::new(peers.len() * (peers.len() - 1)));
    let (finished, deadline) = (CancellationToken::new(), Instant::now() + MESH_TIMEOUT);
    let mut tasks = JoinSet::new();
    for (name, session) in sessions {
        let others = peers.iter().map(|(_, key)| *key).filter(|key| *key != session.key).collect();
        let exchange =
            Exchange { session, others, left: Arc::clone(&left), finished: finished.clone() };
        tasks.spawn(async move { (name, exchange.run(deadline).await) });
    }
    let mut apart = Vec::new();
    for (to, missing) in tasks.join_all().await {
        let from = peers.iter().filter(|(_, key)| missing.contains(key));
        apart.extend(from.map(|(from, _)| (from.clone(), to.clone())));
    }
    apart.sort();
    apart
}

/// One node's part.
struct Exchange {
    session: Session,
    others: BTreeSet<NodePublic>,
    /// Packets that have not arrived anywhere.
    left: Arc<AtomicUsize>,
    finished: CancellationToken,
}

impl Exchange {
    /// Sends and receives until all packets have arrived everywhere. Returns whose have not arrived here.
    async fn run(mut self, deadline: Instant) -> BTreeSet<NodePublic> {
        let mut missing = self.others.clone();
        let mut sends = interval(SEND_EVERY);
        loop {
            tokio::select! {
                biased;
                () = self.finished.cancelled() => return missing,
                () = sleep_until(deadline) => return missing,
                event = self.session.events.recv() => {
                    let Some(event) = event else { return missing };
                    self.take(event, &mut missing);
                }
                _ = sends.tick() => {
                    for other in &self.others {
                        self.session.client.send(*other, PACKET);
                    }
                }
            }
        }
    }

    fn take(&self, event: Event, missing: &mut BTreeSet<NodePublic>) {
        let Event::Received { src, packet, .. } = event else { return };
        let is_first = packet == PACKET && missing.remove(&src);
        if is_first && self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.finished.cancel();
        }
    }
}
