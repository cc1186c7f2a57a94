//! A client of a map stream: it believes what it is told, and checks on the way that it can.

use std::sync::Arc;
use std::time::Duration;

use mesh_client::Netmap;
use mesh_keys::DiscoPublic;
use mesh_model::{Node, NodeId, SessionId, Timestamp};
use mesh_netmap::{MapContext, full};
use mesh_state::Snapshot;
use mesh_streamer::{Compression, MapStream};
use mesh_wire::{MapResponse, SessionRules, is_incremental};
use tokio::time::{Instant, timeout_at};

use crate::lab::{bytes_of, json_of, parse};

/// How many messages of which kind a client was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Complete netmaps, the first of each stream included.
    pub(super) whole: usize,
    /// Changes of peers and packet filters.
    pub(super) deltas: usize,
    /// Changes of a node's own situation.
    pub(super) config: usize,
    /// Signs of life.
    pub(super) keep_alives: usize,
}

impl Told {
    pub(super) fn add(&mut self, more: Self) {
        self.whole += more.whole;
        self.deltas += more.deltas;
        self.config += more.config;
        self.keep_alives += more.keep_alives;
    }

    fn note(&mut self, message: &MapResponse) {
        let kind = if message.keep_alive {
            &mut self.keep_alives
        } else if message.derp_map.is_some() {
            &mut self.whole
        } else if is_incremental(message) {
            &mut self.deltas
        } else {
            &mut self.config
        };
        *kind += 1;
    }
}

/// One map session. What was told is folded twice: as the protocol means it, and as Go clients do it.
pub(super) struct Client {
    pub(super) node: NodeId,
    pub(super) session: SessionId,
    pub(super) is_prompt: bool,
    /// Whether its stream is over.
    pub(super) has_ended: bool,
    pub(super) told: Told,
    stream: MapStream,
    compression: Compression,
    rules: SessionRules,
    meant: Netmap,
    stock: Netmap,
    /// Lengths of the keep-alive, once one came, and of everything else.
    keep_alive: Option<usize>,
    lengths: Vec<usize>,
}

impl Client {
    pub(super) fn new(
        (node, session): (NodeId, SessionId),
        stream: MapStream,
        compression: Compression,
        is_prompt: bool,
    ) -> Self {
        Self {
            node,
            session,
            is_prompt,
            has_ended: false,
            told: Told::default(),
            stream,
            compression,
            rules: SessionRules::new(),
            meant: Netmap::default(),
            stock: Netmap::default(),
            keep_alive: None,
            lengths: Vec::new(),
        }
    }

    /// Reads for a while, and tells whether anything came beside keep-alives.
    pub(super) async fn read(&mut self, time: Duration) -> Result<bool, String> {
        let (end, mut has_news) = (Instant::now() + time, false);
        while !self.has_ended {
            let Ok(message) = timeout_at(end, self.stream.next()).await else { break };
            match message {
                Some(message) => has_news |= self.take_in(&bytes_of(&message))?,
                None => self.has_ended = true,
            }
        }
        Ok(has_news)
    }

    /// Takes in a message; tells whether it was more than a keep-alive.
    fn take_in(&mut self, bytes: &bytes::Bytes) -> Result<bool, String> {
        let message = parse(&json_of(bytes, self.compression));
        let problem = |what: String| format!("node {} was told {message:#?}: {what}", self.node);
        if message.keep_alive {
            self.keep_alive = Some(bytes.len());
        } else {
            self.lengths.push(bytes.len());
        }
        if self.keep_alive.is_some_and(|length| self.lengths.contains(&length)) {
            return Err(problem("as long as a keep-alive".to_owned()));
        }
        if message == MapResponse::default() {
            return Err(problem("nothing is worth no message".to_owned()));
        }
        self.rules.apply(&message).map_err(|broken| problem(broken.to_string()))?;
        let is_news = !message.keep_alive;
        self.told.note(&message);
        // Nothing that is told depends on the time at which it is read.
        self.meant.apply(message.clone(), Timestamp::UNIX_EPOCH);
        self.stock.apply_as_stock(message, Timestamp::UNIX_EPOCH);
        Ok(is_news)
    }

    /// Checks that a stream which is over may have ended, and that one which is not had not to.
    pub(super) fn check_end(&self, snapshot: &Snapshot) -> Result<(), String> {
        let key = self.meant.node.as_ref().map(|node| node.key);
        let is_same = |node: &&Arc<Node>| key.is_none_or(|key| key == node.node_key);
        let node = snapshot.tailnet.node(self.node).filter(is_same);
        let is_held = |node: &Arc<Node>| node.session == Some(self.session);
        // Whose key has expired may be told so although it is offline.
        let is_told = |node: &Arc<Node>| node.session.is_none() && node.is_expired(snapshot.at);
        if self.has_ended && node.is_some_and(is_held) {
            return Err(format!("the stream of node {} is over, but holds its node", self.node));
        }
        if !self.has_ended && !node.is_some_and(|node| is_held(node) || is_told(node)) {
            return Err(format!("the stream of node {} goes on, but holds no node", self.node));
        }
        Ok(())
    }

    /// The law: what was told adds up to the full netmap, however it is folded.
    pub(super) fn check(
        &self,
        snapshot: &Snapshot,
        context: &Arc<MapContext>,
    ) -> Result<(), String> {
        let everything = full(snapshot, self.node, context, snapshot.at);
        let Some(everything) = everything else {
            return Err(format!("node {} is gone, but not its stream", self.node));
        };
        let mut fresh = Netmap::default();
        fresh.apply(everything, Timestamp::UNIX_EPOCH);
        let folds = [
            (&self.meant, &fresh, "as meant"),
            (&forgiven(&self.stock), &forgiven(&fresh), "as Go clients do it"),
        ];
        for (told, fresh, how) in folds {
            difference(told, fresh)
                .map_or(Ok(()), |what| Err(format!("node {}, {how}: {what}", self.node)))?;
        }
        Ok(())
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

/// What is different between what was told and the full netmap.
fn difference(told: &Netmap, fresh: &Netmap) -> Option<String> {
    let (mut told, mut fresh) = (told.clone().normalized(), fresh.clone().normalized());
    if told == fresh {
        return None;
    }
    for (id, peer) in &fresh.peers {
        match told.peers.get(id) {
            Some(known) if known == peer => {}
            known => return Some(format!("told of peer {id} {known:#?}\nbut it is {peer:#?}")),
        }
    }
    if let Some(id) = told.peers.keys().find(|id| !fresh.peers.contains_key(*id)) {
        return Some(format!("peer {id} should be gone"));
    }
    told.peers.clear();
    fresh.peers.clear();
    Some(format!("told {told:#?}\nbut it is {fresh:#?}"))
}
