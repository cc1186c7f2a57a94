//! Nodes on a virtual network: each has a path to every other, and sends data by what the paths say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh_disco::TransactionId;
use mesh_path::{Disco, PING_BURST, PING_REFILL, PeerPath, Route, Transmit, Way};
use mesh_wire::DerpRegionId;

use mesh_testkit::network::{Delivery, Gateway, HostId, Network, SiteId};

/// A message as it travels: only whom it is for can open it.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    from: HostId,
    to: HostId,
    message: Message,
}

#[derive(Debug, Clone)]
enum Message {
    Ping(TransactionId),
    Pong(TransactionId),
    CallMeMaybe(Vec<SocketAddr>),
    Data { number: u64, wants_reply: bool },
}

/// Data that came, for the first time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) from: HostId,
    pub(crate) to: HostId,
    pub(crate) at: Instant,
}

/// Data that one node sends to another again and again.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) from: HostId,
    pub(crate) to: HostId,
    pub(crate) period: Duration,
    pub(crate) next_at: Instant,
    pub(crate) wants_reply: bool,
}

/// What the control server tells a node of another, once it comes.
#[derive(Debug)]
struct Update {
    to: HostId,
    peer: HostId,
    endpoints: Vec<SocketAddr>,
    home: Option<DerpRegionId>,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) network: Network<Sealed>,
    pub(crate) flows: Vec<Flow>,
    pub(crate) arrivals: Vec<Arrival>,
    /// When anything was last sent by anyone.
    pub(crate) sent_at: Instant,
    hosts: Vec<HostId>,
    paths: BTreeMap<(HostId, HostId), PeerPath>,
    pings: BTreeMap<(HostId, HostId), Vec<Instant>>,
    updates: BTreeMap<(Instant, u64), Update>,
    seen: BTreeSet<(HostId, u64)>,
    numbers: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            network: Network::new(seed, now),
            flows: Vec::new(),
            arrivals: Vec::new(),
            sent_at: now,
            hosts: Vec::new(),
            paths: BTreeMap::new(),
            pings: BTreeMap::new(),
            updates: BTreeMap::new(),
            seen: BTreeSet::new(),
            numbers: 0,
        }
    }

    /// Adds a node at a site of its own. All know all at once.
    pub(crate) fn add_node(&mut self, gateway: Gateway, home: Option<DerpRegionId>) -> HostId {
        let site = self.network.add_site(gateway);
        self.add_node_at(site, home)
    }

    pub(crate) fn add_node_at(&mut self, site: SiteId, home: Option<DerpRegionId>) -> HostId {
        let host = self.network.add_host(site, home);
        for other in self.hosts.clone() {
            self.paths.insert((host, other), PeerPath::new(self.network.now));
            self.paths.insert((other, host), PeerPath::new(self.network.now));
            self.tell(host, other, Duration::ZERO);
        }
        self.hosts.push(host);
        self.tell_all(host, Duration::ZERO);
        host
    }

    /// Moves a node to another site. The others hear of it from the control server after a while.
    pub(crate) fn roam(&mut self, host: HostId, site: SiteId, told_after: Duration) {
        self.network.move_host(host, site);
        let now = self.network.now;
        for peer in self.peers(host) {
            self.path(host, peer).handle_link_changed(now);
            self.drain(host, peer);
        }
        self.tell_all(host, told_after);
    }

    /// Has a node change its home relay.
    pub(crate) fn change_home(&mut self, host: HostId, home: DerpRegionId, told_after: Duration) {
        self.network.set_home(host, Some(home));
        self.tell_all(host, told_after);
    }

    pub(crate) fn route(&self, from: HostId, to: HostId) -> Route {
        self.paths[&(from, to)].route(self.network.now)
    }

    pub(crate) fn is_direct(&self, from: HostId, to: HostId) -> bool {
        let route = self.route(from, to);
        route.udp.is_some() && route.relay.is_none()
    }

    pub(crate) fn is_any_timer_set(&self) -> bool {
        self.paths.values().any(|path| path.poll_timeout().is_some())
    }

    /// Starts data from one node to another.
    pub(crate) fn start(&mut self, from: HostId, to: HostId, wants_reply: bool) {
        let next_at = self.network.now;
        let period = Duration::from_millis(200);
        self.flows.push(Flow { from, to, period, next_at, wants_reply });
    }

    pub(crate) fn run_for(&mut self, span: Duration) {
        self.run_until(span, |_| false);
    }

    /// Lets time go by until something is so. Says whether it came to be.
    pub(crate) fn run_until(
        &mut self,
        span: Duration,
        mut is_so: impl FnMut(&Self) -> bool,
    ) -> bool {
        let end = self.network.now + span;
        while !is_so(self) {
            let next_at = self.next_at().filter(|at| *at <= end);
            let Some(next_at) = next_at else {
                self.network.now = end;
                return false;
            };
            assert!(next_at >= self.network.now, "time goes back");
            self.network.now = next_at;
            self.step();
        }
        true
    }

    fn next_at(&self) -> Option<Instant> {
        let timers = self.paths.values().filter_map(PeerPath::poll_timeout);
        let flows = self.flows.iter().map(|flow| flow.next_at);
        let updates = self.updates.keys().next().map(|(at, _)| *at);
        timers.chain(flows).chain(updates).chain(self.network.next_at()).min()
    }

    /// Does one thing that is due.
    fn step(&mut self) {
        let now = self.network.now;
        if self.network.next_at().is_some_and(|at| at <= now) {
            if let Some(delivery) = self.network.land() {
                self.deliver(delivery);
            }
        } else if let Some(entry) = self.updates.first_entry().filter(|it| it.key().0 <= now) {
            let Update { to, peer, endpoints, home } = entry.remove();
            let path = self.path(to, peer);
            path.handle_endpoints(&endpoints, now);
            path.handle_home(home);
            self.drain(to, peer);
        } else if let Some(flow) = self.flows.iter_mut().find(|flow| flow.next_at <= now) {
            flow.next_at = now + flow.period;
            let (from, to, wants_reply) = (flow.from, flow.to, flow.wants_reply);
            self.send_data(from, to, wants_reply);
        } else {
            let is_due = |path: &PeerPath| path.poll_timeout().is_some_and(|at| at <= now);
            let due = self.paths.iter().find(|(_, path)| is_due(path));
            let (from, to) = *due.expect("something is due").0;
            self.path(from, to).handle_timeout(now);
            self.drain(from, to);
            assert!(!is_due(self.path(from, to)), "a timer stands still");
        }
    }

    fn deliver(&mut self, delivery: Delivery<Sealed>) {
        let now = self.network.now;
        let (at, way, sealed) = match delivery {
            Delivery::RelayGone { to, region, peer } => {
                return self.path(to, peer).handle_relay_gone(region);
            }
            Delivery::Udp { to, src, payload } => (to, Way::Udp(src), payload),
            Delivery::Relay { to, region, payload } => (to, Way::Relay(region), payload),
        };
        let Sealed { from, to, message } = sealed;
        if to != at {
            return;
        }
        let path = self.path(to, from);
        match message {
            Message::Ping(transaction) => path.handle_ping(way, transaction, now),
            Message::Pong(transaction) => drop(path.handle_pong(way, transaction, now)),
            Message::CallMeMaybe(endpoints) => path.handle_call_me_maybe(&endpoints, way, now),
            Message::Data { number, wants_reply } => {
                path.handle_received(way, now);
                if self.seen.insert((to, number)) {
                    self.arrivals.push(Arrival { from, to, at: now });
                    if wants_reply {
                        self.send_data(to, from, false);
                    }
                }
            }
        }
        self.drain(to, from);
    }

    fn send_data(&mut self, from: HostId, to: HostId, wants_reply: bool) {
        let now = self.network.now;
        self.path(from, to).handle_sending(now);
        self.drain(from, to);
        self.numbers += 1;
        let message = Message::Data { number: self.numbers, wants_reply };
        let route = self.route(from, to);
        let ways = route.udp.map(Way::Udp).into_iter().chain(route.relay.map(Way::Relay));
        for way in ways {
            self.send(from, to, way, message.clone());
        }
    }

    /// Sends what a path has to say.
    fn drain(&mut self, from: HostId, to: HostId) {
        let now = self.network.now;
        loop {
            let numbers = &mut self.numbers;
            let path = self.paths.get_mut(&(from, to)).expect("all know all");
            let mut fresh = || {
                *numbers += 1;
                let mut bytes = [0; 12];
                bytes[..8].copy_from_slice(&numbers.to_be_bytes());
                TransactionId(bytes)
            };
            let Some(Transmit { way, disco }) = path.poll_transmit(now, &mut fresh) else { return };
            let message = match disco {
                Disco::Ping { transaction } => {
                    self.note_ping(from, to);
                    Message::Ping(transaction)
                }
                Disco::Pong { transaction, .. } => Message::Pong(transaction),
                Disco::CallMeMaybe => Message::CallMeMaybe(self.network.endpoints(from)),
            };
            self.send(from, to, way, message);
        }
    }

    fn send(&mut self, from: HostId, to: HostId, way: Way, message: Message) {
        self.sent_at = self.network.now;
        let sealed = Sealed { from, to, message };
        match way {
            Way::Udp(dst) => self.network.send_udp(from, dst, sealed),
            Way::Relay(region) => self.network.send_relay(from, region, to, sealed),
        }
    }

    /// Law: no more pings leave than a full bucket, and what flows into it meanwhile.
    fn note_ping(&mut self, from: HostId, to: HostId) {
        let now = self.network.now;
        let pings = self.pings.entry((from, to)).or_default();
        pings.push(now);
        for (count, at) in (1_u32..).zip(pings.iter().rev().take(500)) {
            let allowed = PING_REFILL * count.saturating_sub(PING_BURST);
            assert!(now - *at >= allowed, "{count} pings within {:?}", now - *at);
        }
    }

    fn tell_all(&mut self, host: HostId, after: Duration) {
        for peer in self.peers(host) {
            self.tell(peer, host, after);
        }
    }

    fn tell(&mut self, to: HostId, peer: HostId, after: Duration) {
        self.numbers += 1;
        let endpoints = self.network.endpoints(peer);
        let home = self.network.home_of(peer);
        let update = Update { to, peer, endpoints, home };
        self.updates.insert((self.network.now + after, self.numbers), update);
    }

    fn peers(&self, host: HostId) -> Vec<HostId> {
        self.hosts.iter().copied().filter(|other| *other != host).collect()
    }

    fn path(&mut self, from: HostId, to: HostId) -> &mut PeerPath {
        self.paths.get_mut(&(from, to)).expect("all know all")
    }
}
