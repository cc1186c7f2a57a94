//! The ways to peers: their paths, and what is sent on them.
//!
//! A peer has a path from the first packet on. Timers are kept in one set, so that peers that are silent cost nothing.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use mesh_disco::{Channel, Message, TransactionId};
use mesh_keys::{DiscoPrivate, NodePrivate, NodePublic};
use mesh_path::{Disco, PeerPath, Route, Status, Transmit, Way};
use mesh_peers::{Changed, Peer, PeerIndex, PeerTable};
use mesh_wire::DerpRegionId;

use super::outbox::{Outbox, Recipient, Relayed};
use super::random::Random;

/// All ways.
#[derive(Debug)]
pub(super) struct Ways {
    public: NodePublic,
    disco: DiscoPrivate,
    random: Random,
    /// Whether nothing is sent to peers by UDP, and what they send so is passed over.
    pub(super) never_direct: bool,
    /// Where the node can be reached.
    endpoints: Vec<SocketAddr>,
    peers: HashMap<PeerIndex, PeerWay>,
    timers: BTreeSet<(Instant, PeerIndex)>,
}

/// The way to one peer.
#[derive(Debug)]
pub(super) struct PeerWay {
    key: NodePublic,
    pub(super) path: PeerPath,
    /// `None` if the peer has no disco key that one can be made with.
    pub(super) channel: Option<Channel>,
    timer: Option<Instant>,
    /// The handshake that the peer has not answered, or the last datagram that there was no way for. It is sent again as soon
    /// as another way is known: WireGuard itself waits 5 s, and a peer is often found a moment after it was first called.
    unanswered: Option<Bytes>,
    rx_bytes: u64,
    tx_bytes: u64,
}

impl Ways {
    pub(super) fn new(public: NodePublic, disco: DiscoPrivate, random: Random) -> Self {
        Self {
            public,
            disco,
            random,
            never_direct: false,
            endpoints: Vec::new(),
            peers: HashMap::new(),
            timers: BTreeSet::new(),
        }
    }

    /// The node's own key.
    pub(super) fn public(&self) -> NodePublic {
        self.public
    }

    /// Takes over where the node can be reached, for peers that are called.
    pub(super) fn set_endpoints(&mut self, endpoints: Vec<SocketAddr>) {
        self.endpoints = endpoints;
    }

    /// The key by which peers know the node's disco messages.
    #[cfg(test)]
    pub(super) fn disco_key(&self) -> mesh_keys::DiscoPublic {
        self.disco.public()
    }

    /// Random bytes.
    pub(super) fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// Begins anew with another key: paths know the node by the old one.
    pub(super) fn change_key(&mut self, private: &NodePrivate) {
        self.public = private.public();
        self.peers.clear();
        self.timers.clear();
    }

    /// Whether the node talks to anybody.
    pub(super) fn is_any_active(&self) -> bool {
        !self.timers.is_empty()
    }

    /// The path to a peer, if it was ever needed.
    pub(super) fn status(&self, index: PeerIndex, now: Instant) -> Option<Status> {
        Some(self.peers.get(&index)?.path.status(now))
    }

    /// Bytes that came from a peer, and that were sent to it.
    pub(super) fn traffic(&self, index: PeerIndex) -> (u64, u64) {
        self.peers.get(&index).map(|peer| (peer.rx_bytes, peer.tx_bytes)).unwrap_or_default()
    }

    /// Forgets a peer.
    pub(super) fn forget(&mut self, index: PeerIndex) {
        if let Some(PeerWay { timer: Some(at), .. }) = self.peers.remove(&index) {
            self.timers.remove(&(at, index));
        }
    }

    /// Takes over what has changed of a peer. Returns its old key if that is another now: its tunnel is void.
    pub(super) fn handle_changed(
        &mut self,
        index: PeerIndex,
        peer: &Peer,
        changed: Changed,
        now: Instant,
        outbox: &mut Outbox,
    ) -> Option<NodePublic> {
        let way = self.peers.get_mut(&index)?;
        if changed.endpoints {
            way.path.handle_endpoints(&peer.endpoints, now);
        }
        if changed.home_derp {
            way.path.handle_home(Some(peer.home_derp).filter(|home| home.0 != 0));
        }
        if changed.disco_key {
            way.channel = Channel::new(&self.disco, &peer.disco_key);
            way.path.handle_link_changed(now);
        }
        let old_key = std::mem::replace(&mut way.key, peer.key);
        way.unanswered.take_if(|_| changed.key || changed.disco_key);
        self.settle(index, now, outbox);
        self.call_again(index, now, outbox);
        changed.key.then_some(old_key)
    }

    /// Notes that data came from a peer.
    pub(super) fn handle_received(
        &mut self,
        peers: &PeerTable,
        index: PeerIndex,
        way: Way,
        bytes: usize,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        self.update(peers, index, now, outbox, |peer| {
            peer.rx_bytes += bytes as u64;
            peer.unanswered = None;
            peer.path.handle_received(way, now);
        });
    }

    /// Sends once more what has not been answered, for something has been learnt about the ways to the peer.
    pub(super) fn call_again(&mut self, index: PeerIndex, now: Instant, outbox: &mut Outbox) {
        if let Some(peer) = self.peers.get_mut(&index)
            && let Some(datagram) = peer.unanswered.take()
        {
            self.send_by_route(index, &datagram, now, outbox);
        }
    }

    /// Notes that a relay does not hold a peer.
    pub(super) fn handle_relay_gone(&mut self, index: PeerIndex, region: DerpRegionId) {
        if let Some(peer) = self.peers.get_mut(&index) {
            peer.path.handle_relay_gone(region);
        }
    }

    /// When [`Self::handle_timeouts`] is due.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Does what is due.
    pub(super) fn handle_timeouts(&mut self, peers: &PeerTable, now: Instant, outbox: &mut Outbox) {
        while let Some((_, index)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.update(peers, index, now, outbox, |peer| peer.path.handle_timeout(now));
        }
    }

    /// Notes that an address of a peer cannot be sent to.
    pub(super) fn handle_send_failed(
        &mut self,
        index: PeerIndex,
        address: SocketAddr,
        now: Instant,
        outbox: &mut Outbox,
    ) {
        if let Some(peer) = self.peers.get_mut(&index) {
            peer.path.handle_send_failed(address, now);
            self.settle(index, now, outbox);
        }
    }

    /// Changes the way to a peer, then sends what that calls for.
    pub(super) fn update(
        &mut self,
        peers: &PeerTable,
        index: PeerIndex,
        now: Instant,
        outbox: &mut Outbox,
        change: impl FnOnce(&mut PeerWay),
    ) {
        if !self.peers.contains_key(&index) {
            let Some(peer) = peers.get(index) else { return };
            self.peers.insert(index, PeerWay::new(peer, &self.disco, now));
        }
        if let Some(peer) = self.peers.get_mut(&index) {
            change(peer);
        }
        self.settle(index, now, outbox);
    }

    /// Sends data to a peer: directly, through a relay, or both while neither has proven itself.
    pub(super) fn send(
        &mut self,
        peers: &PeerTable,
        index: PeerIndex,
        datagram: &[u8],
        now: Instant,
        outbox: &mut Outbox,
    ) {
        self.update(peers, index, now, outbox, |peer| peer.path.handle_sending(now));
        self.send_by_route(index, datagram, now, outbox);
    }

    /// Asks a peer for a pong, all ways that data takes.
    pub(super) fn ping(
        &mut self,
        peers: &PeerTable,
        index: PeerIndex,
        now: Instant,
        outbox: &mut Outbox,
    ) -> Vec<TransactionId> {
        self.update(peers, index, now, outbox, |peer| peer.path.handle_sending(now));
        let route = self.status(index, now).unwrap_or_default().route;
        let ways = [route.udp.map(Way::Udp), route.relay.map(Way::Relay)];
        let pings = ways.into_iter().flatten().map(|way| {
            let transaction = self.random.transaction();
            self.send_disco(index, Transmit { way, disco: Disco::Ping { transaction } }, outbox);
            transaction
        });
        pings.collect()
    }

    fn send_by_route(
        &mut self,
        index: PeerIndex,
        datagram: &[u8],
        now: Instant,
        outbox: &mut Outbox,
    ) {
        let Some(peer) = self.peers.get_mut(&index) else { return };
        let (key, Route { udp, relay }) = (peer.key, peer.path.route(now));
        peer.tx_bytes += datagram.len() as u64;
        if is_handshake(datagram) || udp.is_none() && relay.is_none() {
            peer.unanswered = Some(Bytes::copy_from_slice(datagram));
        }
        if let Some(to) = udp {
            outbox.datagrams.push(datagram, Recipient { to, peer: Some(index) });
        }
        if let Some(region) = relay {
            let datagram = Bytes::copy_from_slice(datagram);
            outbox.relayed.push(Relayed { region, key, datagram });
        }
    }

    /// Sends what a path has to say, and sets its timer.
    fn settle(&mut self, index: PeerIndex, now: Instant, outbox: &mut Outbox) {
        let Self { peers, random, .. } = self;
        let Some(peer) = peers.get_mut(&index) else { return };
        let mut transmits = Vec::new();
        while let Some(transmit) = peer.path.poll_transmit(now, &mut || random.transaction()) {
            transmits.push(transmit);
        }
        let timer = peer.path.poll_timeout();
        let old = std::mem::replace(&mut peer.timer, timer);
        if old != timer {
            old.map(|at| self.timers.remove(&(at, index)));
            self.timers.extend(timer.map(|at| (at, index)));
        }
        for transmit in transmits {
            self.send_disco(index, transmit, outbox);
        }
    }

    fn send_disco(
        &mut self,
        index: PeerIndex,
        Transmit { way, disco }: Transmit,
        outbox: &mut Outbox,
    ) {
        let Some(peer) = self.peers.get(&index) else { return };
        let (Some(channel), Some(nonce)) = (&peer.channel, self.random.bytes()) else { return };
        let message = match disco {
            Disco::Ping { transaction } => {
                Message::Ping { transaction, node_key: Some(self.public), padding_bytes: 0 }
            }
            Disco::Pong { transaction, src } => Message::Pong { transaction, src },
            Disco::CallMeMaybe => Message::CallMeMaybe { endpoints: self.endpoints.clone() },
        };
        let (mut datagram, key) = (Vec::new(), peer.key);
        channel.seal(&message, nonce, &mut datagram);
        match way {
            // An address that cannot be sent to is no way, which the missing pong says.
            Way::Udp(_) if self.never_direct => {}
            Way::Udp(to) => outbox.datagrams.push(&datagram, Recipient { to, peer: None }),
            Way::Relay(region) => {
                outbox.relayed.push(Relayed { region, key, datagram: datagram.into() });
            }
        }
    }
}

impl PeerWay {
    fn new(peer: &Peer, disco: &DiscoPrivate, now: Instant) -> Self {
        let mut path = PeerPath::new(now);
        path.handle_endpoints(&peer.endpoints, now);
        path.handle_home(Some(peer.home_derp).filter(|home| home.0 != 0));
        let channel = Channel::new(disco, &peer.disco_key);
        Self {
            key: peer.key,
            path,
            channel,
            timer: None,
            unanswered: None,
            rx_bytes: 0,
            tx_bytes: 0,
        }
    }
}

/// Whether a datagram is a first message of a handshake.
fn is_handshake(datagram: &[u8]) -> bool {
    datagram.starts_with(&[1, 0, 0, 0])
}
