//! The engine: the one task that owns peers, tunnels, paths, the packet filter, relays and sockets.
//!
//! What comes by UDP or through a relay is told apart (disco, STUN, WireGuard), decrypted, checked and given to the TCP/IP stack;
//! what the stack wants to send goes the other way. Messages of the control server change the tables in place. Nobody
//! else touches any of it: programs ask by [`Request`].

mod disco;
mod query;
mod sockets;
mod ways;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mesh_client::Netmap;
use mesh_derp::stun;
use mesh_derp_client::Event as RelayEvent;
use mesh_filter::{Filter, Flows, Packet, Verdict};
use mesh_keys::{DiscoPrivate, NodePrivate};
use mesh_path::Way;
use mesh_peers::{Event as PeerEvent, PeerIndex, PeerTable};
use mesh_stack::{Outgoing, PacketBatch, Stack};
use mesh_wire::{DerpRegionId, EndpointType, MapResponse};
use mesh_wireguard::{Output, TICK, Tunnels};
use rustls::RootCertStore;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;
use tracing::{debug, trace};

use crate::control::{Report, Update};
use crate::host::{local_endpoints, wall_clock};
use crate::netcheck::Netcheck;
use crate::stun_servers::stun_servers;

pub(crate) use query::Request;
pub(crate) use sockets::Sockets;
use ways::Ways;

/// Datagrams that are read in one go, before others get their turn.
const DATAGRAMS_AT_ONCE: usize = 64;

/// How often what is seldom needed is looked after: relays that nobody needs, addresses that may have changed.
const CHORES_PERIOD: Duration = Duration::from_secs(15);

/// What the engine starts with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) key: watch::Receiver<NodePrivate>,
    pub(crate) disco: DiscoPrivate,
    pub(crate) sockets: Sockets,
    pub(crate) stack: Stack,
    pub(crate) outgoing: Outgoing,
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) updates: mpsc::Receiver<Update>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) report: watch::Sender<Report>,
    pub(crate) addresses: watch::Sender<Vec<IpAddr>>,
    pub(crate) has_relay: watch::Sender<bool>,
}

/// The task.
#[derive(Debug)]
pub(crate) struct Engine {
    key: watch::Receiver<NodePrivate>,
    updates: mpsc::Receiver<Update>,
    requests: mpsc::Receiver<Request>,
    report: watch::Sender<Report>,
    addresses: watch::Sender<Vec<IpAddr>>,
    /// Whether the home relay has let the node in, so that peers can reach it.
    has_relay: watch::Sender<bool>,
    stack: Stack,
    outgoing: Outgoing,
    relay_events: mpsc::Receiver<RelayEvent>,
    found_servers: (mpsc::Sender<StunServers>, mpsc::Receiver<StunServers>),
    /// The servers that were found last.
    stun_servers: StunServers,
    /// All that the control server says but the peers.
    netmap: Netmap,
    /// Whether the next message is the first of its session.
    begins: bool,
    peers: PeerTable,
    tunnels: Tunnels,
    ways: Ways,
    netcheck: Netcheck,
    filter: Filter,
    flows: Flows,
    /// Packets that have passed the filter and wait for the stack.
    accepted: Vec<Vec<u8>>,
    tick_at: Option<Instant>,
    chores_at: Instant,
}

type StunServers = Vec<(DerpRegionId, SocketAddr)>;

/// Relay events that wait for the engine; relays then wait for it.
const RELAY_EVENTS_MAX: usize = 256;

impl Engine {
    pub(crate) fn new(parts: Parts) -> Self {
        let (relay_sender, relay_events) = mpsc::channel(RELAY_EVENTS_MAX);
        let private = parts.key.borrow().clone();
        let tunnels = Tunnels::new(&private);
        let ways = Ways::new(private, parts.disco, parts.sockets, parts.roots, relay_sender);
        Self {
            key: parts.key,
            updates: parts.updates,
            requests: parts.requests,
            report: parts.report,
            addresses: parts.addresses,
            has_relay: parts.has_relay,
            stack: parts.stack,
            outgoing: parts.outgoing,
            relay_events,
            found_servers: mpsc::channel(1),
            stun_servers: Vec::new(),
            netmap: Netmap::default(),
            begins: true,
            peers: PeerTable::new(),
            tunnels,
            ways,
            netcheck: Netcheck::default(),
            filter: Filter::new([]),
            flows: Flows::new(),
            accepted: Vec::new(),
            tick_at: None,
            chores_at: Instant::now(),
        }
    }

    /// Works until the node is closed.
    pub(crate) async fn run(mut self) {
        let mut batch = PacketBatch::new();
        let mut buffer = vec![0; sockets::DATAGRAM_BYTES_MAX];
        loop {
            let wake_at = self.next_timeout();
            tokio::select! {
                biased;
                // News of the tailnet first: a packet that it forbids must not slip through.
                update = self.updates.recv() => match update {
                    Some(update) => self.handle_update(update),
                    None => return,
                },
                changed = self.key.changed() => if changed.is_ok() { self.change_key() },
                request = self.requests.recv() => match request {
                    Some(request) => self.handle_request(request),
                    None => return,
                },
                () = sleep_until(wake_at.into()) => self.handle_timeout(Instant::now()),
                Some(event) = self.relay_events.recv() => self.handle_relay_event(event),
                Some(servers) = self.found_servers.1.recv() => self.ask_stun(servers),
                // Who sends without end must still hear acknowledgements.
                () = self.outgoing.next_batch(&mut batch) => {
                    self.send_packets(&batch);
                    self.receive_datagrams(&mut buffer);
                }
                () = self.ways.sockets.readable() => self.receive_datagrams(&mut buffer),
            }
        }
    }

    fn next_timeout(&self) -> Instant {
        let waiting = [self.tick_at, self.ways.next_timeout(), self.netcheck.settles_at()];
        waiting.into_iter().flatten().chain([self.chores_at]).min().unwrap_or(self.chores_at)
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.tick_at.is_some_and(|at| now >= at) {
            self.tick(now);
        }
        self.ways.handle_timeouts(&self.peers, now);
        if self.netcheck.settles_at().is_some_and(|at| now >= at) {
            self.review_home(now);
        }
        if now >= self.chores_at {
            self.chores_at = now + CHORES_PERIOD;
            self.ways.drop_idle_relays(now);
            self.find_stun_servers(now);
            self.review_home(now);
            self.update_report();
        }
    }

    /// Lets time pass in the tunnels.
    fn tick(&mut self, now: Instant) {
        let Self { tunnels, ways, peers, .. } = self;
        tunnels.handle_tick(|output| emit(output, ways, peers, now, None));
        self.tick_at = self.tunnels.is_active().then(|| now + TICK);
    }

    fn handle_update(&mut self, update: Update) {
        match update {
            Update::Began => self.begins = true,
            Update::Message(message) => self.handle_message(*message, Instant::now()),
        }
    }

    fn handle_message(&mut self, mut message: MapResponse, now: Instant) {
        if message.keep_alive {
            return;
        }
        let mut events = Vec::new();
        if std::mem::take(&mut self.begins) {
            self.netmap = Netmap::default();
            self.filter.clear();
            if message.peers.is_empty() {
                self.peers.clear(&mut events);
            }
        }
        let has_new_relays = message.derp_map.is_some();
        let has_new_self = message.node.is_some();
        self.apply_filter(&message);
        // "Seen now" is a word for people; that the clock may be wrong does no harm.
        self.peers.apply(&mut message, wall_clock(), &mut events);
        self.netmap.apply(message, wall_clock());
        for event in events {
            self.handle_peer_event(event, now);
        }
        if has_new_self {
            self.take_addresses();
        }
        if has_new_relays {
            self.ways.set_relays(self.netmap.derp_map.clone());
            self.stun_servers.clear();
            self.find_stun_servers(now);
            self.review_home(now);
        }
    }

    fn apply_filter(&mut self, message: &MapResponse) {
        if let Some(rules) = &message.packet_filter {
            self.filter.set("base", rules);
        }
        if let Some(None) = message.packet_filters.get("*") {
            self.filter.clear();
        }
        for (name, rules) in message.packet_filters.iter().filter(|(name, _)| *name != "*") {
            match rules {
                Some(rules) => drop(self.filter.set(name, rules)),
                None => self.filter.remove(name),
            }
        }
    }

    fn handle_peer_event(&mut self, event: PeerEvent, now: Instant) {
        match event {
            PeerEvent::Came(_) => {}
            PeerEvent::Went(index, peer) => {
                self.tunnels.remove(&peer.key);
                self.ways.forget(index);
            }
            PeerEvent::Changed(index, changed) => {
                let Some(peer) = self.peers.get(index) else { return };
                if let Some(old_key) = self.ways.handle_changed(index, peer, changed, now) {
                    self.tunnels.remove(&old_key);
                }
            }
        }
    }

    /// Takes the node's own addresses and routes from the netmap.
    fn take_addresses(&mut self) {
        let Some(node) = &self.netmap.node else { return };
        let addresses: Vec<IpAddr> = node.addresses.iter().map(ipnet::IpNet::addr).collect();
        self.stack.set_addresses(&addresses);
        self.filter.set_locals(node.allowed_ips.clone().unwrap_or_default());
        self.addresses.send_if_modified(|current| {
            let is_new = *current != addresses;
            *current = addresses;
            is_new
        });
    }

    /// Begins anew with another node key.
    fn change_key(&mut self) {
        let private = self.key.borrow_and_update().clone();
        self.tunnels = Tunnels::new(&private);
        self.ways.change_key(private);
        self.review_home(Instant::now());
    }

    fn handle_relay_event(&mut self, event: RelayEvent) {
        let now = Instant::now();
        match event {
            RelayEvent::Received { region, src, packet } => {
                self.receive(&packet, Way::Relay(region), Some(src), now);
                self.flush_accepted();
            }
            RelayEvent::PeerGone { region, key, .. } => {
                if let Some(index) = self.peers.by_key(&key) {
                    self.ways.handle_relay_gone(index, region);
                }
            }
            RelayEvent::Connected { region } => {
                debug!(derp.region = region.0, "relay connected");
                self.note_relay(region, true);
            }
            RelayEvent::Disconnected { region, cause } => {
                self.note_relay(region, false);
                debug!(
                    derp.region = region.0,
                    error = &cause as &dyn std::error::Error,
                    "relay gone"
                );
            }
        }
    }

    fn note_relay(&mut self, region: DerpRegionId, is_connected: bool) {
        if self.ways.home() == Some(region) {
            self.has_relay.send_replace(is_connected);
        }
    }

    fn receive_datagrams(&mut self, buffer: &mut [u8]) {
        let now = Instant::now();
        for _ in 0..DATAGRAMS_AT_ONCE {
            let Some((length, from)) = self.ways.sockets.receive(buffer) else { break };
            self.receive(&buffer[..length], Way::Udp(from), None, now);
        }
        self.flush_accepted();
    }

    /// Takes a datagram, of `relayed` if a relay says so.
    fn receive(
        &mut self,
        datagram: &[u8],
        way: Way,
        relayed: Option<mesh_keys::NodePublic>,
        now: Instant,
    ) {
        if mesh_disco::is_disco(datagram) {
            return self.ways.handle_disco(&self.peers, datagram, way, relayed, now);
        }
        if let Way::Udp(from) = way
            && let Ok((transaction, seen_as)) = stun::parse_binding_response(datagram)
        {
            if self.netcheck.handle_answer(&transaction, seen_as, from, now) {
                self.review_home(now);
                self.update_report();
            }
            return;
        }
        self.decrypt(datagram, way, now);
    }

    fn decrypt(&mut self, datagram: &[u8], way: Way, now: Instant) {
        let Self { tunnels, ways, peers, filter, flows, accepted, .. } = self;
        let from = match way {
            Way::Udp(from) => Some(from),
            Way::Relay(_) => None,
        };
        let is_peer = |key: &mesh_keys::NodePublic| peers.by_key(key).is_some();
        let result = tunnels.decapsulate(from.map(|from| from.ip()), datagram, is_peer, |output| {
            if let Output::Packet { peer, bytes } = output {
                let index = peers.by_key(&peer);
                if index.is_some_and(|index| may_enter(bytes, index, peers, filter, flows, now)) {
                    accepted.push(bytes.to_vec());
                }
            } else {
                emit(output, ways, peers, now, from);
            }
        });
        match result {
            Ok(key) => {
                if let Some(index) = peers.by_key(&key) {
                    ways.handle_received(peers, index, way, now);
                }
                self.tick_at.get_or_insert(now + TICK);
            }
            Err(error) => trace!(%error, "datagram dropped"),
        }
    }

    fn flush_accepted(&mut self) {
        if !self.accepted.is_empty() {
            self.stack.receive(self.accepted.drain(..));
        }
    }

    /// Encrypts what the stack wants to send. What is for the node itself comes back at once.
    fn send_packets(&mut self, batch: &PacketBatch) {
        let now = Instant::now();
        for bytes in batch.packets() {
            let Ok(packet) = Packet::parse(bytes) else { continue };
            let destination = packet.destination.ip();
            if self.addresses.borrow().contains(&destination) {
                self.accepted.push(bytes.to_vec());
                continue;
            }
            let Some(index) = self.peers.by_address(destination) else {
                trace!("packet to nobody dropped");
                continue;
            };
            let Some(key) = self.peers.get(index).map(|peer| peer.key) else { continue };
            self.flows.note_outgoing(&packet, now);
            let Self { tunnels, ways, peers, .. } = self;
            tunnels.encapsulate(&key, bytes, |output| emit(output, ways, peers, now, None));
            self.tick_at.get_or_insert(now + TICK);
        }
        self.flush_accepted();
    }

    /// Asks for the way of every relay's STUN server, or asks the servers again.
    fn find_stun_servers(&mut self, now: Instant) {
        let is_due = self.stun_servers.is_empty() || self.ways.is_any_active();
        if !is_due || !self.netcheck.is_stale(now) {
            return;
        }
        if !self.stun_servers.is_empty() {
            let servers = std::mem::take(&mut self.stun_servers);
            return self.ask_stun(servers);
        }
        if let Some(map) = self.netmap.derp_map.clone() {
            let found = self.found_servers.0.clone();
            tokio::spawn(async move { found.send(stun_servers(&map).await).await.ok() });
        }
    }

    fn ask_stun(&mut self, servers: StunServers) {
        let now = Instant::now();
        self.netcheck.begin_round(now);
        for (region, server) in &servers {
            let Some(transaction) = disco::random() else { continue };
            self.netcheck.note_asked(transaction, *region, *server, now);
            self.ways.sockets.send(*server, &stun::encode_binding_request(&transaction)).ok();
        }
        self.stun_servers = servers;
    }

    fn review_home(&mut self, now: Instant) {
        let Some(map) = &self.netmap.derp_map else { return };
        if let Some(home) = self.netcheck.choose_home(map, now) {
            self.ways.set_home(home, now);
            self.update_report();
        }
    }

    /// Tells the control server where the node is, if that has changed.
    fn update_report(&mut self) {
        let seen_as = self.netcheck.seen_as().map(|address| (address, EndpointType::STUN));
        let local = local_endpoints(self.ways.sockets.port());
        let mut endpoints: Vec<_> = local.into_iter().chain(seen_as).collect();
        endpoints.sort_by_key(|(address, _)| *address);
        endpoints.dedup_by_key(|(address, _)| *address);
        self.ways.set_endpoints(endpoints.iter().map(|(address, _)| *address).collect());
        let home = self.ways.home().unwrap_or_default();
        self.report.send_if_modified(|report| {
            let is_new = report.home != home || report.endpoints != endpoints;
            if is_new {
                *report = Report { endpoints, home, latencies: self.netcheck.latencies() };
            }
            is_new
        });
    }
}

/// Whether a packet of a peer may enter: from an address that is routed to that peer, and let in by the filter.
fn may_enter(
    bytes: &[u8],
    index: PeerIndex,
    peers: &PeerTable,
    filter: &mut Filter,
    flows: &mut Flows,
    now: Instant,
) -> bool {
    let Ok(packet) = Packet::parse(bytes) else { return false };
    if peers.by_address(packet.source.ip()) != Some(index) {
        trace!("packet from an address that is not the peer's");
        return false;
    }
    let has_capability = |address: IpAddr, name: &str| {
        let peer = peers.by_address(address).and_then(|index| peers.get(index));
        peer.is_some_and(|peer| peer.cap_map.contains_key(name))
    };
    match filter.check(&packet, flows, has_capability, now) {
        Verdict::Accept => true,
        Verdict::Drop(reason) => {
            trace!(%reason, "packet dropped");
            false
        }
    }
}

/// Sends what a tunnel has given. `from` is where the datagram came from that it answers.
fn emit(
    output: Output<'_>,
    ways: &mut Ways,
    peers: &PeerTable,
    now: Instant,
    from: Option<SocketAddr>,
) {
    match output {
        Output::Datagram { peer, bytes } => {
            if let Some(index) = peers.by_key(&peer) {
                ways.send(peers, index, Bytes::copy_from_slice(bytes), now);
            }
        }
        Output::Cookie(bytes) => {
            if let Some(from) = from {
                ways.sockets.send(from, bytes).ok();
            }
        }
        Output::Packet { .. } => {}
    }
}
