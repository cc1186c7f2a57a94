//! All fake nodes together, and what they share.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use mesh_client::Dialer;
use mesh_keys::MachinePublic;
use mesh_wire::DerpRegionId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::bits::BitSet;
use crate::node::Node;
use crate::reader::{Reader, Slot};
use crate::roster::Expected;
use crate::view::Counts;

/// Most nodes that dial from one address: its ports would run out at 28,000, and closed ones rest for a minute.
const NODES_PER_SOURCE: u32 = 8000;

/// Most different errors that are told apart.
const ERRORS_MAX: usize = 20;

/// What all nodes use.
#[derive(Debug)]
pub(crate) struct Shared {
    dialer: Dialer,
    pub(crate) server_key: MachinePublic,
    /// `zstd` or empty.
    pub(crate) compress: &'static str,
    pub(crate) reader: Reader,
    turns: Arc<Semaphore>,
    home: watch::Sender<Option<DerpRegionId>>,
    cuts: AtomicU64,
    errors: Mutex<BTreeMap<String, u64>>,
    /// Whether dials are spread over the addresses of the loopback network.
    spread: bool,
}

impl Shared {
    pub(crate) fn new(
        dialer: Dialer,
        server_key: MachinePublic,
        compress: &'static str,
        concurrency: usize,
    ) -> Self {
        let spread = dialer.url().host().parse().is_ok_and(|host: Ipv4Addr| host.is_loopback());
        Self {
            dialer,
            server_key,
            compress,
            reader: Reader::default(),
            turns: Arc::new(Semaphore::new(concurrency)),
            home: watch::Sender::new(None),
            cuts: AtomicU64::new(0),
            errors: Mutex::default(),
            spread,
        }
    }

    /// Waits until the node may join.
    pub(crate) async fn turn(&self) -> OwnedSemaphorePermit {
        let turns = Arc::clone(&self.turns);
        turns.acquire_owned().await.expect("invariant: the semaphore is never closed")
    }

    /// The dialer of the node at `index`.
    pub(crate) fn dialer(&self, index: u32) -> Dialer {
        let dialer = self.dialer.clone();
        let source = u32::from(Ipv4Addr::LOCALHOST) + index / NODES_PER_SOURCE;
        if self.spread { dialer.with_source(IpAddr::V4(source.into())) } else { dialer }
    }

    /// Waits until it is known which relay the nodes are at home with.
    pub(crate) async fn home(&self) -> DerpRegionId {
        let mut home = self.home.subscribe();
        let known = home.wait_for(Option::is_some).await;
        known.ok().and_then(|home| *home).unwrap_or_default()
    }

    /// Takes the first answer to what the home is; no relay is an answer.
    pub(crate) fn learn_home(&self, find: impl FnOnce() -> Option<DerpRegionId>) {
        if self.home.borrow().is_none() {
            let home = find().unwrap_or_default();
            self.home.send_if_modified(|known| known.replace(home).is_none());
        }
    }

    /// A connection ended that nobody had ordered to end.
    pub(crate) fn note_cut(&self) {
        self.cuts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_error(&self, error: &anyhow::Error) {
        let mut errors = self.errors.lock().expect("invariant: nobody panics here");
        let text = format!("{error:#}");
        if errors.len() < ERRORS_MAX || errors.contains_key(&text) {
            *errors.entry(text).or_default() += 1;
        }
    }
}

/// The nodes and whom they should see.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) shared: Arc<Shared>,
    expected: Expected,
    /// How many of the nodes, from the first on, have been told to join.
    pub(crate) joined: usize,
    /// Whether peers that are none of ours are passed over.
    ignore_others: bool,
    tasks: Vec<tokio::task::AbortHandle>,
}

/// What is wrong with what nodes see, in pairs of viewer and peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Peers that should not be seen.
    pub(crate) wrong: usize,
    /// Peers that should be seen and are not.
    pub(crate) missing: usize,
    /// Nodes that see what they should.
    pub(crate) right_nodes: usize,
}

impl Fleet {
    pub(crate) fn new(
        nodes: Vec<Arc<Node>>,
        shared: Arc<Shared>,
        expected: Expected,
        ignore_others: bool,
    ) -> Self {
        Self { nodes, shared, expected, joined: 0, ignore_others, tasks: Vec::new() }
    }

    /// Starts the next `count` nodes.
    pub(crate) fn join(&mut self, count: usize) {
        for node in &self.nodes[self.joined..self.joined + count] {
            node.come();
            let (node, shared) = (Arc::clone(node), Arc::clone(&self.shared));
            let task = tokio::spawn(async move { node.run(&shared).await });
            self.tasks.push(task.abort_handle());
        }
        self.joined += count;
    }

    /// The nodes that were told to join.
    pub(crate) fn members(&self) -> &[Arc<Node>] {
        &self.nodes[..self.joined]
    }

    /// Expects others to be seen from now on.
    pub(crate) fn expect(&mut self, expected: Expected) {
        self.expected = expected;
    }

    /// What every member should see, in slots; `None` while some member has not had a map.
    pub(crate) fn expectation(&self) -> Option<Expectation> {
        let own: Option<Vec<usize>> =
            self.members().iter().map(|node| node.view().own.map(|slot| slot as usize)).collect();
        let own = own?;
        let sets = (0..own.len()).map(|viewer| self.expected.peers(viewer, &own)).collect();
        let ours = self.ignore_others.then(|| own.iter().copied().collect());
        Some(Expectation { sets, ours })
    }

    /// How far every node sees what it should on its newest stream. Without an expectation, for somebody has not had a
    /// map yet, those who have had one are right, but never all.
    pub(crate) fn verdict(&self, expectation: Option<&Expectation>) -> Verdict {
        let Some(Expectation { sets, ours }) = expectation else {
            let had = self.members().iter().filter(|node| node.view().own.is_some()).count();
            let others = self.joined.saturating_sub(1);
            return Verdict {
                wrong: 0,
                missing: (self.joined - had) * others,
                right_nodes: had.min(others),
            };
        };
        let mut verdict = Verdict::default();
        for (node, expected) in self.members().iter().zip(sets) {
            if !node.order.borrow().is_judged() {
                verdict.right_nodes += 1;
                continue;
            }
            let view = node.view();
            let wrong = view.peers.count_beyond(expected, ours.as_ref());
            let missing = expected.count_beyond(&view.peers, None);
            verdict.wrong += wrong;
            verdict.missing += missing;
            let is_right = wrong == 0 && missing == 0 && view.is_current();
            verdict.right_nodes += usize::from(is_right);
        }
        verdict
    }

    /// What all nodes received so far.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for node in self.members() {
            counts.add(&node.view().counts);
        }
        counts
    }

    /// Connections so far that ended though nobody had ordered it.
    pub(crate) fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Relaxed)
    }

    /// Takes the errors since the last call, with how often each came.
    pub(crate) fn take_errors(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut *self.shared.errors.lock().expect("invariant: nobody panics here"))
    }

    /// The members whose view counts.
    pub(crate) fn judged(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.members().iter().filter(|node| node.order.borrow().is_judged())
    }

    /// Judges every node by the next stream that it opens.
    pub(crate) fn expect_new_streams(&self) {
        for node in self.judged() {
            node.expect_new_stream();
        }
    }

    /// The judged nodes that are looked at closely.
    pub(crate) fn sampled(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.judged().filter(|node| node.view().sample.is_some())
    }

    /// When members' peers last became others, for those whose did since `start`.
    pub(crate) fn settled_at(&self, start: Instant) -> Vec<Instant> {
        let changed = self.judged().filter_map(|node| node.view().changed_at);
        changed.filter(|at| *at >= start).collect()
    }

    /// When the first and the last message came since [`Self::forget_told`], keep-alives aside.
    pub(crate) fn told(&self) -> Option<(Instant, Instant)> {
        let told = self.judged().filter_map(|node| node.view().told);
        told.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
    }

    pub(crate) fn forget_told(&self) {
        for node in self.members() {
            node.view().told = None;
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What every member should see, by the members' positions.
#[derive(Debug)]
pub(crate) struct Expectation {
    sets: Vec<BitSet>,
    /// The bits of our own nodes, if others do not count.
    ours: Option<BitSet>,
}

impl Expectation {
    /// The positions of those who should see the node with this bit.
    pub(crate) fn viewers(&self, slot: Slot) -> impl Iterator<Item = usize> {
        let sets = self.sets.iter().enumerate();
        sets.filter(move |(_, set)| set.contains(slot as usize)).map(|(viewer, _)| viewer)
    }
}
