//! A client of a map stream: it believes what it is told, and checks on the way that it can.

use std::sync::Arc;

use mesh_client::{Applied, Netmap};
use mesh_keys::DiscoPublic;
use mesh_model::NodeId;
use mesh_netmap::{
    Comparisons, Differences, Group, MapContext, PeersDelta, Step, Told, full, withdrawal,
};
use mesh_policy::{CompiledPolicy, NodeFacts, UserFacts};
use mesh_state::Snapshot;
use mesh_wire::{MapResponse, SessionRules, is_incremental};

use crate::house::{House, context_with};

/// One map session. What was told is folded twice: as the protocol means it, and as Go clients do it.
pub(crate) struct Viewer {
    pub(crate) node: NodeId,
    cursor: usize,
    context: Arc<MapContext>,
    meant: Netmap,
    stock: Netmap,
    rules: SessionRules,
    /// How many of its messages made a Go client rebuild its netmap.
    pub(crate) rebuilds: usize,
    pub(crate) has_ended: bool,
}

impl Viewer {
    /// Opens the session of a node with two relay regions in its context.
    pub(crate) fn open(house: &House, node: NodeId) -> Self {
        Self::open_in(house, node, context_with([1, 2]))
    }

    pub(crate) fn open_in(house: &House, node: NodeId, context: Arc<MapContext>) -> Self {
        let mut viewer = Self {
            node,
            cursor: house.cursor(),
            context,
            meant: Netmap::default(),
            stock: Netmap::default(),
            rules: SessionRules::new(),
            rebuilds: 0,
            has_ended: false,
        };
        let message = full(house.newest(), node, &viewer.context, house.time());
        viewer.take_in(house, &message.expect("the node is there"));
        viewer.check(house);
        viewer
    }

    /// Catches up with the newest epoch: what it is told, which adds up to what it should know.
    pub(crate) fn wake(&mut self, house: &House) -> Vec<MapResponse> {
        let (from, to, changes) = house.since(self.cursor);
        let step = Step { from, to, changes: &changes, context: &self.context };
        let messages: Vec<MapResponse> = match step.tell(self.node) {
            Told::Differences(Differences { filters, peers, config }) => {
                let peers = peers.map(|group| self.shared(step, group)).unwrap_or_default();
                let messages = peers.messages(self.node, filters, to, &self.context);
                messages.into_iter().chain(config.map(|config| *config)).collect()
            }
            Told::Everything => {
                assert!(step.audience().contains(self.node), "it is told everything");
                return self.wake_in(house, self.context.clone());
            }
            Told::Gone(last) => {
                self.has_ended = true;
                last.into_iter().map(|last| *last).collect()
            }
        };
        let is_told = self.has_ended || !messages.is_empty();
        assert!(!is_told || step.audience().contains(self.node), "{messages:#?}");
        self.advance(house, &messages);
        messages
    }

    /// Catches up in another context, or with a cursor that fell out of the log: everything again.
    pub(crate) fn wake_in(&mut self, house: &House, context: Arc<MapContext>) -> Vec<MapResponse> {
        let (told, to, _) = house.since(self.cursor);
        let messages = withdrawal(told, to, self.node).and_then(|withdrawn| {
            let mut message = full(to, self.node, &context, house.time())?;
            message.ssh_policy = message.ssh_policy.or(withdrawn.ssh_policy);
            let peers_removed = withdrawn.peers;
            let removal = MapResponse { peers_removed, ..MapResponse::default() };
            let removal = Some(removal).filter(|removal| !removal.peers_removed.is_empty());
            Some(removal.into_iter().chain([message]).collect())
        });
        self.has_ended |= messages.is_none();
        self.context = context;
        let messages: Vec<MapResponse> = messages.unwrap_or_default();
        self.advance(house, &messages);
        messages
    }

    /// Whether its cursor is in this context.
    pub(crate) fn is_in(&self, context: &Arc<MapContext>) -> bool {
        Arc::ptr_eq(&self.context, context)
    }

    /// What the viewer's group is told of its peers, whichever of them is asked for it.
    fn shared(&self, step: Step<'_>, group: Group) -> PeersDelta {
        let shared = step.peers(self.node, &Comparisons::default());
        let known = Comparisons::default();
        for node in step.to.tailnet.nodes().map(|node| node.id) {
            let Told::Differences(Differences { peers: Some(theirs), .. }) = step.tell(node) else {
                continue;
            };
            if theirs == group {
                assert_eq!(shared, step.peers(node, &known));
            }
        }
        shared
    }

    fn advance(&mut self, house: &House, messages: &[MapResponse]) {
        for message in messages {
            assert_ne!(*message, MapResponse::default(), "nothing is worth no message");
            self.take_in(house, message);
        }
        self.cursor = house.cursor();
        if !self.has_ended {
            self.check(house);
        }
    }

    fn take_in(&mut self, house: &House, message: &MapResponse) {
        assert_eq!(self.rules.apply(message), Ok(()), "by {message:#?}");
        assert!(is_incremental(message) || !message.has_peer_deltas());
        self.meant.apply(message.clone(), house.time());
        let applied = self.stock.apply_as_stock(message.clone(), house.time());
        self.rebuilds += usize::from(applied == Applied::Rebuilt);
    }

    /// The law: what was told adds up to the full netmap, however it is folded.
    fn check(&self, house: &House) {
        let everything = full(house.newest(), self.node, &self.context, house.time());
        let everything = everything.expect("the node is there");
        check_policy(house.newest(), self.node, &everything);
        let mut fresh = Netmap::default();
        fresh.apply(everything, house.time());
        check_same(&self.meant, &fresh, "as meant");
        check_same(&forgiven(&self.stock), &forgiven(&fresh), "as Go clients do it");
    }
}

/// A netmap of a Go client, which may hold on to an old disco key and last-seen time of a peer that is away. Where
/// the peer's key has expired, nobody minds.
fn forgiven(netmap: &Netmap) -> Netmap {
    let mut netmap = netmap.clone();
    for peer in netmap.peers.values_mut().filter(|peer| peer.expired) {
        (peer.disco_key, peer.last_seen) = (DiscoPublic::default(), None);
    }
    netmap
}

fn check_same(told: &Netmap, fresh: &Netmap, how: &str) {
    let (told, fresh) = (told.clone().normalized(), fresh.clone().normalized());
    for (id, peer) in &fresh.peers {
        assert_eq!(told.peers.get(id), Some(peer), "peer {id}, {how}");
    }
    assert_eq!(told, fresh, "{how}");
}

/// The peers of a viewer are those of the announced nodes that policy lets it see, and what it lets in is what policy
/// says; none and nothing if its own key has expired.
fn check_policy(snapshot: &Snapshot, viewer: NodeId, everything: &MapResponse) {
    let own = snapshot.tailnet.node(viewer).expect("the node is there");
    let users = snapshot.tailnet.users().map(|user| UserFacts::from(&**user));
    let announced = snapshot.tailnet.nodes().filter(|node| !node.disco_key.is_zero());
    let nodes = announced.map(|node| NodeFacts::from(&**node));
    let policy = CompiledPolicy::compile(snapshot.policy.policy().clone(), users, nodes);
    let expected: Vec<u64> = if own.is_expired(snapshot.at) {
        Vec::new()
    } else {
        policy.peers(viewer).into_iter().map(u64::from).collect()
    };
    let told: Vec<u64> = everything.peers.iter().map(|peer| peer.id.0).collect();
    assert_eq!(told, expected, "peers are told once each and in order");
    let filters = if own.is_expired(snapshot.at) { 0 } else { policy.filter_chunks(viewer).len() };
    assert_eq!(everything.packet_filters.len(), filters + 1, "one more that clears all");
}
