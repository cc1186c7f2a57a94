//! Nodes, whole but for sockets and cryptography, on a virtual network with relays, STUN servers and a control server.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use jiff::Timestamp;
use mesh_derp::stun;
use mesh_keys::{DiscoPrivate, NodePrivate, NodePublic};
use mesh_path::Way;
use mesh_testkit::network::{Delivery, Dice, Gateway, HostId, Network};
use mesh_wire::{
    DerpMap, DerpNode, DerpRegion, DerpRegionId, EndpointType, FilterRule, MapResponse,
    NetPortRange, Node, NodeId, PeerChange, PortRange,
};

use super::packets::{self, Datagram};
use super::tunnels::Tunnels;
use crate::control::{Report, Update};
use crate::core::{Core, Effect, Random, Routing};

/// The port that policy opens, at which nodes send back what comes.
pub(super) const OPEN_PORT: u16 = 7;

/// The port that policy never opens.
pub(super) const CLOSED_PORT: u16 = 9;

/// The port that a node sends from.
const SOURCE_PORT: u16 = 4000;

/// How often a flow sends.
const PERIOD: Duration = Duration::from_millis(250);

/// A datagram under way, and who sent it.
#[derive(Debug, Clone)]
pub(super) struct Payload {
    bytes: Vec<u8>,
    from: NodePublic,
}

#[derive(Debug)]
struct Member {
    core: Core<Tunnels>,
    private: NodePrivate,
    /// The node, as the control server tells it.
    node: Node,
}

/// What comes by another way than the network.
#[derive(Debug)]
enum Pending {
    Update { to: usize, update: Update },
    Stun { to: usize, answer: Vec<u8>, from: SocketAddr },
    FoundServers { to: usize },
    Send { from: usize, to: usize, port: u16 },
}

/// A datagram of a program that a node was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) is_answer: bool,
    pub(super) at: Instant,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) network: Network<Payload>,
    pub(super) arrivals: Vec<Arrival>,
    /// Who may reach the open port of whom.
    pub(super) allowed: BTreeSet<(usize, usize)>,
    members: Vec<Member>,
    pending: BTreeMap<(Instant, u64), Pending>,
    flows: BTreeSet<(usize, usize, u16)>,
    derp_map: Arc<DerpMap>,
    sent: u64,
    /// Who has sent to whom: answers may come.
    has_sent: BTreeSet<(usize, usize)>,
}

impl World {
    /// A world with relays in some regions, and without nodes.
    pub(super) fn new(seed: u64, regions: u16) -> Self {
        let ids = (1..=regions).map(|id| DerpRegionId(id.into()));
        let mut network = Network::new(seed, Instant::now());
        network.regions = ids.clone().collect();
        let regions = ids.map(|id| (id, region(id))).collect();
        let derp_map = DerpMap { regions: Some(regions), ..DerpMap::default() };
        Self {
            network,
            arrivals: Vec::new(),
            allowed: BTreeSet::new(),
            members: Vec::new(),
            pending: BTreeMap::new(),
            flows: BTreeSet::new(),
            derp_map: Arc::new(derp_map),
            sent: 0,
            has_sent: BTreeSet::new(),
        }
    }

    /// Adds a node at a site of its own, or beside another node. All are told of it.
    pub(super) fn add_node(&mut self, gateway: Gateway, beside: Option<usize>) -> usize {
        let site = match beside {
            Some(other) => self.network.site_of(HostId(other)),
            None => self.network.add_site(gateway),
        };
        let HostId(index) = self.network.add_host(site, None);
        let private = NodePrivate::from_bytes(self.random());
        let id = u8::try_from(index + 1).expect("not that many nodes");
        let address = IpNet::from(IpAddr::from([100, 64, 0, id]));
        let node = Node {
            id: NodeId(id.into()),
            stable_id: format!("n{id}"),
            name: format!("n{id}.test."),
            key: private.public(),
            addresses: vec![address],
            allowed_ips: Some(vec![address]),
            machine_authorized: true,
            ..Node::default()
        };
        let core = self.core(&private);
        self.members.push(Member { core, private, node });
        self.start(index);
        index
    }

    /// Starts a node anew: it has forgotten all but its node key.
    pub(super) fn restart(&mut self, index: usize) {
        let private = self.members[index].private.clone();
        self.members[index].core = self.core(&private);
        self.pending.retain(|_, pending| !pending.is_for(index));
        self.start(index);
    }

    /// Moves a node to another site.
    pub(super) fn roam(&mut self, index: usize, gateway: Gateway) {
        let site = self.network.add_site(gateway);
        self.network.move_host(HostId(index), site);
    }

    /// Changes who may reach whom. Nodes hear of it after a while; until then nothing new is held against them.
    pub(super) fn set_allowed(&mut self, allowed: BTreeSet<(usize, usize)>) {
        self.allowed = allowed;
        for to in 0..self.members.len() {
            let message =
                MapResponse { packet_filter: Some(self.rules(to)), ..MapResponse::default() };
            self.tell(to, message);
        }
    }

    /// Has a node send to a port of another again and again.
    pub(super) fn begin(&mut self, from: usize, to: usize, port: u16) {
        if self.flows.insert((from, to, port)) {
            self.plan(Duration::ZERO, Pending::Send { from, to, port });
        }
    }

    /// Ends all flows.
    pub(super) fn end_flows(&mut self) {
        self.flows.clear();
    }

    /// Whether data of one node goes to another directly, and surely.
    pub(super) fn is_direct(&self, from: usize, to: usize) -> bool {
        let status = self.members[from].core.status(self.network.now);
        let name = &self.members[to].node.name;
        status.peers.iter().any(|peer| peer.node.name == *name && peer.direct.is_some())
    }

    /// Lets time go by.
    pub(super) fn run_for(&mut self, span: Duration) {
        let end = self.network.now + span;
        while let Some(next_at) = self.next_at().filter(|at| *at <= end) {
            self.network.now = next_at.max(self.network.now);
            self.step();
        }
        self.network.now = end;
    }

    fn core(&mut self, private: &NodePrivate) -> Core<Tunnels> {
        let disco = DiscoPrivate::from_bytes(self.random());
        let mut dice = Dice::new(self.network.dice.below(u64::MAX));
        let random = Random::new(move |bytes| {
            dice.fill(bytes);
            true
        });
        Core::new(private, disco, Routing::default(), random, self.network.now)
    }

    fn random(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.network.dice.fill(&mut bytes);
        bytes
    }

    /// Opens the session of a node with the control server, and tells the others of it.
    fn start(&mut self, index: usize) {
        let member = &mut self.members[index];
        member.node.disco_key = member.core.disco_key();
        member.node.endpoints.clear();
        member.node.home_derp = DerpRegionId::default();
        let peers = self.members.iter().enumerate().filter(|(other, _)| *other != index);
        let first = MapResponse {
            node: Some(Box::new(self.members[index].node.clone())),
            derp_map: Some(Arc::clone(&self.derp_map)),
            peers: peers.map(|(_, member)| member.node.clone()).collect(),
            packet_filter: Some(self.rules(index)),
            ..MapResponse::default()
        };
        let delay = self.network.dice.ms(20, 300);
        self.plan(delay, Pending::Update { to: index, update: Update::Began });
        self.plan(delay, Pending::Update { to: index, update: Update::Message(Box::new(first)) });
        let node = self.members[index].node.clone();
        let news = MapResponse { peers_changed: vec![node], ..MapResponse::default() };
        self.tell_others(index, &news);
        self.settle(index);
    }

    fn rules(&self, to: usize) -> Vec<FilterRule> {
        let sources = self.allowed.iter().filter(|(_, allowed_to)| *allowed_to == to);
        let address =
            |index: usize| Arc::from(self.members[index].node.addresses[0].addr().to_string());
        let sources: Vec<Arc<str>> = sources.map(|(from, _)| address(*from)).collect();
        let ports = PortRange { first: OPEN_PORT, last: OPEN_PORT };
        let rule = FilterRule {
            src_ips: sources.into(),
            dst_ports: vec![NetPortRange { ip: Arc::from("*"), ports }],
            ..FilterRule::default()
        };
        if rule.src_ips.is_empty() { Vec::new() } else { vec![rule] }
    }

    fn tell_others(&mut self, about: usize, news: &MapResponse) {
        for to in (0..self.members.len()).filter(|to| *to != about) {
            self.tell(to, news.clone());
        }
    }

    /// Tells a node something after what it was told before.
    fn tell(&mut self, to: usize, message: MapResponse) {
        let told = self.pending.iter().filter(
            |(_, pending)| matches!(pending, Pending::Update { to: other, .. } if *other == to),
        );
        let last = told.map(|((at, _), _)| *at).max().unwrap_or(self.network.now);
        let at = last.max(self.network.now + self.network.dice.ms(20, 300));
        let update = Update::Message(Box::new(message));
        self.plan(at - self.network.now, Pending::Update { to, update });
    }

    fn plan(&mut self, after: Duration, pending: Pending) {
        self.sent += 1;
        self.pending.insert((self.network.now + after, self.sent), pending);
    }

    fn next_at(&self) -> Option<Instant> {
        let timers = self.members.iter().map(|member| member.core.next_timeout());
        let pending = self.pending.keys().next().map(|(at, _)| *at);
        timers.chain(pending).chain(self.network.next_at()).min()
    }

    /// Does one thing that is due.
    fn step(&mut self) {
        let now = self.network.now;
        if self.network.next_at().is_some_and(|at| at <= now) {
            if let Some(delivery) = self.network.land() {
                self.deliver(delivery);
            }
        } else if let Some(entry) = self.pending.first_entry().filter(|it| it.key().0 <= now) {
            let pending = entry.remove();
            self.carry_out(pending);
        } else {
            let due = self.members.iter().position(|member| member.core.next_timeout() <= now);
            let index = due.expect("something is due");
            self.members[index].core.handle_timeout(now);
            self.settle(index);
            assert!(self.members[index].core.next_timeout() > now, "a timer stands still");
        }
    }

    fn deliver(&mut self, delivery: Delivery<Payload>) {
        let now = self.network.now;
        let index = match delivery {
            Delivery::Udp { to: HostId(index), src, payload } => {
                let core = &mut self.members[index].core;
                core.handle_datagram(&payload.bytes, Way::Udp(src), None, now);
                index
            }
            Delivery::Relay { to: HostId(index), region, payload: Payload { bytes, from } } => {
                let core = &mut self.members[index].core;
                core.handle_datagram(&bytes, Way::Relay(region), Some(from), now);
                index
            }
            Delivery::RelayGone { to: HostId(index), region, peer: HostId(peer) } => {
                let key = self.members[peer].node.key;
                self.members[index].core.handle_peer_gone(region, &key);
                index
            }
        };
        self.settle(index);
    }

    fn carry_out(&mut self, pending: Pending) {
        let now = self.network.now;
        let index = match pending {
            Pending::Update { to, update } => {
                self.members[to].core.handle_update(update, Timestamp::UNIX_EPOCH, now);
                to
            }
            Pending::Stun { to, answer, from } => {
                self.members[to].core.handle_datagram(&answer, Way::Udp(from), None, now);
                to
            }
            Pending::FoundServers { to } => {
                let regions = self.derp_map.regions.iter().flatten();
                let servers = regions.map(|(id, _)| (*id, stun_server(*id))).collect();
                self.members[to].core.handle_stun_servers(servers, now);
                to
            }
            Pending::Send { from, to, port } => {
                if !self.flows.contains(&(from, to, port)) {
                    return;
                }
                self.plan(PERIOD, Pending::Send { from, to, port });
                self.send(from, to, SOURCE_PORT, port);
                from
            }
        };
        self.settle(index);
    }

    fn send(&mut self, from: usize, to: usize, source_port: u16, port: u16) {
        self.has_sent.insert((from, to));
        let address = |index: usize| self.members[index].node.addresses[0].addr();
        let datagram = Datagram {
            source: SocketAddr::new(address(from), source_port),
            destination: SocketAddr::new(address(to), port),
        };
        let packet = packets::encode(&datagram);
        self.members[from].core.send_packet(&packet, self.network.now);
    }

    /// Does what a node wants done.
    fn settle(&mut self, index: usize) {
        let (now, host) = (self.network.now, HostId(index));
        while !self.members[index].core.outbox.is_empty() {
            let outbox = std::mem::take(&mut self.members[index].core.outbox);
            let from = self.members[index].node.key;
            for effect in outbox.effects {
                self.effect(index, effect);
            }
            for relayed in outbox.relayed {
                let is_it = |member: &Member| member.node.key == relayed.key;
                if let Some(to) = self.members.iter().position(is_it) {
                    let payload = Payload { bytes: relayed.datagram.to_vec(), from };
                    self.network.send_relay(host, relayed.region, HostId(to), payload);
                }
            }
            for (bytes, recipient) in outbox.datagrams.iter() {
                if let Ok(transaction) = stun::parse_binding_request(bytes) {
                    self.ask_stun(index, transaction, recipient.to);
                } else {
                    let payload = Payload { bytes: bytes.to_vec(), from };
                    self.network.send_udp(host, recipient.to, payload);
                }
            }
            for (packet, ()) in outbox.accepted.iter() {
                self.arrive(index, packet, now);
            }
        }
    }

    fn effect(&mut self, index: usize, effect: Effect) {
        match effect {
            Effect::Home(home) => {
                self.network.set_home(HostId(index), Some(home));
                self.members[index].core.handle_relay_connected(home);
            }
            Effect::FindStunServers(_) => {
                self.plan(Duration::from_millis(10), Pending::FoundServers { to: index });
            }
            Effect::LookAround => {
                let endpoints = vec![(self.network.addr_of(HostId(index)), EndpointType::LOCAL)];
                self.members[index].core.handle_local_endpoints(endpoints);
            }
            Effect::Report(Report { endpoints, home, .. }) => {
                let node = &mut self.members[index].node;
                node.endpoints = endpoints.iter().map(|(address, _)| *address).collect();
                node.home_derp = home;
                let patch = PeerChange {
                    node_id: node.id,
                    derp_region: home,
                    endpoints: Some(node.endpoints.clone()),
                    ..PeerChange::default()
                };
                let news =
                    MapResponse { peers_changed_patch: vec![patch], ..MapResponse::default() };
                self.tell_others(index, &news);
            }
            Effect::Relays(_) | Effect::Addresses(_) | Effect::Pong(..) | Effect::Event(_) => {}
        }
    }

    fn ask_stun(&mut self, index: usize, transaction: stun::TransactionId, server: SocketAddr) {
        if let Some((seen_as, round_trip)) = self.network.reflect(HostId(index), server) {
            let answer = stun::encode_binding_response(&transaction, seen_as);
            self.plan(round_trip, Pending::Stun { to: index, answer, from: server });
        }
    }

    /// Law: nothing comes in but what policy opens and what answers.
    fn arrive(&mut self, to: usize, packet: &[u8], now: Instant) {
        let Datagram { source, destination } = packets::decode(packet).expect("a packet");
        let is_it = |member: &Member| member.node.addresses[0].addr() == source.ip();
        let from = self.members.iter().position(is_it).expect("a node");
        let is_answer = source.port() == OPEN_PORT && destination.port() == SOURCE_PORT;
        let is_opened = destination.port() == OPEN_PORT && self.allowed.contains(&(from, to));
        let is_awaited = is_answer && self.has_sent.contains(&(to, from));
        assert!(is_opened || is_awaited, "{source} came in to {destination}");
        self.arrivals.push(Arrival { from, to, is_answer, at: now });
        if is_opened {
            self.send(to, from, OPEN_PORT, SOURCE_PORT);
            // Its own outbox is being emptied: what was just added is next.
        }
    }
}

impl Pending {
    fn is_for(&self, index: usize) -> bool {
        match self {
            Self::Update { to, .. } | Self::Stun { to, .. } | Self::FoundServers { to } => {
                *to == index
            }
            Self::Send { .. } => false,
        }
    }
}

fn stun_server(id: DerpRegionId) -> SocketAddr {
    let last = u8::try_from(id.0).expect("not that many regions");
    SocketAddr::from(([9, 9, 9, last], 3478))
}

fn region(id: DerpRegionId) -> DerpRegion {
    let node = DerpNode { region_id: id, ..DerpNode::default() };
    DerpRegion { region_id: id, nodes: vec![node], ..DerpRegion::default() }
}
