//! The ways to peers: paths, the relays that some lead through, and what is sent on them.
//!
//! A peer has a path from the first packet on. Timers are kept in one set, so that peers that are silent cost nothing.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mesh_derp_client::{Event as RelayEvent, Options, RegionClient};
use mesh_disco::{Channel, Message};
use mesh_keys::{DiscoPrivate, NodePrivate, NodePublic};
use mesh_path::{Disco, PeerPath, Route, Status, Transmit, Way};
use mesh_peers::{Changed, Peer, PeerIndex, PeerTable};
use mesh_wire::{DerpMap, DerpRegionId};
use rustls::RootCertStore;
use tokio::sync::mpsc;

use super::disco;
use super::sockets::Sockets;

/// How long a relay that is not home stays connected after it was last needed.
const RELAY_IDLE: Duration = Duration::from_mins(1);

/// All ways.
#[derive(Debug)]
pub(super) struct Ways {
    private: NodePrivate,
    public: NodePublic,
    disco: DiscoPrivate,
    pub(super) sockets: Sockets,
    roots: Arc<RootCertStore>,
    /// Where relays tell what has come.
    relay_events: mpsc::Sender<RelayEvent>,
    relays: HashMap<DerpRegionId, Relay>,
    derp_map: Option<Arc<DerpMap>>,
    home: Option<DerpRegionId>,
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
}

#[derive(Debug)]
struct Relay {
    client: RegionClient,
    used_at: Instant,
}

impl Ways {
    pub(super) fn new(
        private: NodePrivate,
        disco: DiscoPrivate,
        sockets: Sockets,
        roots: Arc<RootCertStore>,
        relay_events: mpsc::Sender<RelayEvent>,
    ) -> Self {
        Self {
            public: private.public(),
            private,
            disco,
            sockets,
            roots,
            relay_events,
            relays: HashMap::new(),
            derp_map: None,
            home: None,
            endpoints: Vec::new(),
            peers: HashMap::new(),
            timers: BTreeSet::new(),
        }
    }

    /// The node's own key.
    pub(super) fn public(&self) -> NodePublic {
        self.public
    }

    /// The home region.
    pub(super) fn home(&self) -> Option<DerpRegionId> {
        self.home
    }

    /// Takes over where the node can be reached, for peers that are called.
    pub(super) fn set_endpoints(&mut self, endpoints: Vec<SocketAddr>) {
        self.endpoints = endpoints;
    }

    /// Takes over the relays. Connections to regions that are not what they were end.
    pub(super) fn set_relays(&mut self, derp_map: Option<Arc<DerpMap>>) {
        let old = std::mem::replace(&mut self.derp_map, derp_map);
        let new = self.derp_map.clone();
        self.relays.retain(|id, _| region(old.as_ref(), *id) == region(new.as_ref(), *id));
    }

    /// Makes a region the home, which stays connected.
    pub(super) fn set_home(&mut self, home: DerpRegionId, now: Instant) {
        if let Some(old) =
            self.home.filter(|old| *old != home).and_then(|old| self.relays.get(&old))
        {
            old.client.set_home(false);
        }
        self.home = Some(home);
        if let Some(relay) = self.relay(home, now) {
            relay.client.set_home(true);
        }
    }

    /// Begins anew with another key: relays and paths know the node by the old one.
    pub(super) fn change_key(&mut self, private: NodePrivate) {
        self.public = private.public();
        self.private = private;
        self.relays.clear();
        self.peers.clear();
        self.timers.clear();
    }

    /// Ends connections to relays that are not needed.
    pub(super) fn drop_idle_relays(&mut self, now: Instant) {
        let home = self.home;
        self.relays.retain(|id, relay| {
            Some(*id) == home || now.saturating_duration_since(relay.used_at) < RELAY_IDLE
        });
    }

    /// Whether the node talks to anybody.
    pub(super) fn is_any_active(&self) -> bool {
        !self.timers.is_empty()
    }

    /// The path to a peer, if it was ever needed.
    pub(super) fn status(&self, index: PeerIndex, now: Instant) -> Option<Status> {
        Some(self.peers.get(&index)?.path.status(now))
    }

    /// Forgets a peer.
    pub(super) fn forget(&mut self, index: PeerIndex) {
        if let Some(PeerWay { timer: Some(at), .. }) = self.peers.remove(&index) {
            self.timers.remove(&(at, index));
        }
    }

    /// Takes over what has changed of a peer. Returns the key whose tunnel is void: the old one of a peer that has another, or
    /// that of a peer that was started anew, as its disco key tells; it knows nothing of the tunnel any more.
    pub(super) fn handle_changed(
        &mut self,
        index: PeerIndex,
        peer: &Peer,
        changed: Changed,
        now: Instant,
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
        let is_void = changed.key || changed.disco_key;
        way.unanswered.take_if(|_| is_void);
        self.settle(index, now);
        self.call_again(index, now);
        is_void.then_some(old_key)
    }

    /// Notes that data came from a peer.
    pub(super) fn handle_received(
        &mut self,
        peers: &PeerTable,
        index: PeerIndex,
        way: Way,
        now: Instant,
    ) {
        self.update(peers, index, now, |peer| {
            peer.unanswered = None;
            peer.path.handle_received(way, now);
        });
    }

    /// Sends once more what has not been answered, for something has been learnt about the ways to the peer.
    pub(super) fn call_again(&mut self, index: PeerIndex, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&index)
            && let Some(datagram) = peer.unanswered.take()
        {
            self.send_by_route(index, datagram, now);
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
    pub(super) fn handle_timeouts(&mut self, peers: &PeerTable, now: Instant) {
        while let Some((_, index)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.update(peers, index, now, |peer| peer.path.handle_timeout(now));
        }
    }

    /// Changes the way to a peer, then sends what that calls for.
    pub(super) fn update(
        &mut self,
        peers: &PeerTable,
        index: PeerIndex,
        now: Instant,
        change: impl FnOnce(&mut PeerWay),
    ) {
        if !self.peers.contains_key(&index) {
            let Some(peer) = peers.get(index) else { return };
            self.peers.insert(index, PeerWay::new(peer, &self.disco, now));
        }
        if let Some(peer) = self.peers.get_mut(&index) {
            change(peer);
        }
        self.settle(index, now);
    }

    /// Sends data to a peer: directly, through a relay, or both while neither has proven itself.
    pub(super) fn send(
        &mut self,
        peers: &PeerTable,
        index: PeerIndex,
        datagram: Bytes,
        now: Instant,
    ) {
        self.update(peers, index, now, |peer| peer.path.handle_sending(now));
        self.send_by_route(index, datagram, now);
    }

    fn send_by_route(&mut self, index: PeerIndex, datagram: Bytes, now: Instant) {
        let Some(peer) = self.peers.get_mut(&index) else { return };
        let (key, Route { udp, relay }) = (peer.key, peer.path.route(now));
        if is_handshake(&datagram) || udp.is_none() && relay.is_none() {
            peer.unanswered = Some(datagram.clone());
        }
        if let Some(address) = udp
            && self.sockets.send(address, &datagram).is_err()
        {
            peer.path.handle_send_failed(address, now);
            self.settle(index, now);
        }
        if let Some(region) = relay
            && let Some(relay) = self.relay(region, now)
        {
            relay.client.send(key, datagram);
        }
    }

    /// Sends what a path has to say, and sets its timer.
    fn settle(&mut self, index: PeerIndex, now: Instant) {
        let Some(peer) = self.peers.get_mut(&index) else { return };
        let mut transmits = Vec::new();
        while let Some(transmit) = peer.path.poll_transmit(now, &mut disco::transaction) {
            transmits.push(transmit);
        }
        let timer = peer.path.poll_timeout();
        let old = std::mem::replace(&mut peer.timer, timer);
        if old != timer {
            old.map(|at| self.timers.remove(&(at, index)));
            self.timers.extend(timer.map(|at| (at, index)));
        }
        for transmit in transmits {
            self.send_disco(index, transmit, now);
        }
    }

    fn send_disco(
        &mut self,
        index: PeerIndex,
        Transmit { way, disco: said }: Transmit,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get(&index) else { return };
        let (Some(channel), Some(nonce)) = (&peer.channel, disco::random()) else { return };
        let message = match said {
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
            Way::Udp(address) => drop(self.sockets.send(address, &datagram)),
            Way::Relay(region) => {
                if let Some(relay) = self.relay(region, now) {
                    relay.client.send(key, datagram.into());
                }
            }
        }
    }

    /// The connection to a region, which is made if there is none.
    fn relay(&mut self, id: DerpRegionId, now: Instant) -> Option<&Relay> {
        if !self.relays.contains_key(&id) {
            let options = Options {
                region: Arc::new(region(self.derp_map.as_ref(), id)?.clone()),
                private: self.private.clone(),
                roots: Arc::clone(&self.roots),
                is_home: self.home == Some(id),
            };
            let client = RegionClient::spawn(options, self.relay_events.clone());
            self.relays.insert(id, Relay { client, used_at: now });
        }
        let relay = self.relays.get_mut(&id)?;
        relay.used_at = now;
        Some(relay)
    }
}

impl PeerWay {
    fn new(peer: &Peer, disco: &DiscoPrivate, now: Instant) -> Self {
        let mut path = PeerPath::new(now);
        path.handle_endpoints(&peer.endpoints, now);
        path.handle_home(Some(peer.home_derp).filter(|home| home.0 != 0));
        let channel = Channel::new(disco, &peer.disco_key);
        Self { key: peer.key, path, channel, timer: None, unanswered: None }
    }
}

/// Whether a datagram is a first message of a handshake.
fn is_handshake(datagram: &[u8]) -> bool {
    datagram.starts_with(&[1, 0, 0, 0])
}

fn region(map: Option<&Arc<DerpMap>>, id: DerpRegionId) -> Option<&mesh_wire::DerpRegion> {
    map?.regions.as_ref()?.get(&id)
}
