//! A virtual network on a virtual clock: sites behind gateways that translate and filter, and relays.
//!
//! Everything follows from a seed. Knows nothing of what the datagrams say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mesh_wire::DerpRegionId;
use proptest::prelude::Rng as _;
use proptest::test_runner::{RngAlgorithm, TestRng};

/// How long a gateway remembers where a host has sent to.
const MAPPING_LIFE: Duration = Duration::from_secs(30);

/// How long a host stays connected to a relay that is not its home, after it last sent through it.
const RELAY_IDLE: Duration = Duration::from_mins(1);

/// The port of every host.
const PORT: u16 = 41_641;

const LAN_LATENCY: Duration = Duration::from_millis(1);

const STUN_SERVER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)), 3478);

/// Random numbers of a seed.
#[derive(Debug)]
pub struct Dice(TestRng);

impl Dice {
    /// Begins with a seed.
    pub fn new(seed: u64) -> Self {
        let bytes = [seed.to_le_bytes(), (!seed).to_le_bytes()].concat();
        let mut random = TestRng::from_seed(RngAlgorithm::XorShift, &bytes);
        // Seeds that differ little begin with numbers that differ little.
        (0..16).for_each(|_| {
            random.next_u64();
        });
        Self(random)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0.next_u64() % limit
    }

    /// True this often in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        let count = u64::try_from(items.len()).expect("64 bits");
        items[usize::try_from(self.below(count)).expect("an index")]
    }

    /// Random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// Milliseconds from a range.
    pub fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(from * 1000 + self.below((to - from) * 1000))
    }
}

/// Whether and how a gateway gives hosts other addresses outside (RFC 4787).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// Hosts have public addresses.
    None,
    /// One outside address for each host.
    Independent,
    /// Another for each destination: a symmetric NAT.
    Dependent,
}

/// What a gateway lets in to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filtering {
    /// All.
    Open,
    /// What comes from an address that the host has sent to.
    Address,
    /// What comes from an address and port that the host has sent to.
    Endpoint,
}

/// What is between a site and the rest of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    /// How it translates.
    pub mapping: Mapping,
    /// What it lets in.
    pub filtering: Filtering,
    /// Whether it lets UDP out at all.
    pub passes_udp: bool,
}

impl Gateway {
    /// One of those that there are.
    pub fn any(dice: &mut Dice) -> Self {
        let mapping = dice.pick(&[Mapping::None, Mapping::Independent, Mapping::Dependent]);
        let filtering = match mapping {
            Mapping::None | Mapping::Independent => {
                dice.pick(&[Filtering::Open, Filtering::Address, Filtering::Endpoint])
            }
            Mapping::Dependent => dice.pick(&[Filtering::Address, Filtering::Endpoint]),
        };
        Self { mapping, filtering, passes_udp: !dice.chance(10) }
    }
}

/// A site: hosts behind one gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SiteId(usize);

/// A host, by the order in which they were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub usize);

#[derive(Debug)]
struct Site {
    gateway: Gateway,
    outside: Ipv4Addr,
    /// How far it is to the middle of the network.
    distance: Duration,
    is_offline: bool,
    sessions: Vec<Session>,
    ports_given: u16,
}

/// What a gateway remembers of what a host has sent from one outside address.
#[derive(Debug)]
struct Session {
    inside: SocketAddr,
    /// For which destination alone, if mapping depends on it.
    only_for: Option<SocketAddr>,
    outside: SocketAddr,
    /// Where the host has sent to, and when last.
    sent: BTreeMap<SocketAddr, Instant>,
}

#[derive(Debug)]
struct Host {
    site: SiteId,
    addr: SocketAddr,
    home: Option<DerpRegionId>,
    /// When it last sent through each relay: there it is connected too.
    relayed_at: BTreeMap<DerpRegionId, Instant>,
}

/// What arrives at a host.
#[derive(Debug)]
pub enum Delivery<P> {
    /// A datagram.
    Udp {
        /// Who gets it.
        to: HostId,
        /// The sender's address, as it is seen there.
        src: SocketAddr,
        /// What it says.
        payload: P,
    },
    /// A message through a relay.
    Relay {
        /// Who gets it.
        to: HostId,
        /// Whose relay.
        region: DerpRegionId,
        /// What it says.
        payload: P,
    },
    /// A relay's word that a peer is not there.
    RelayGone {
        /// Who gets it.
        to: HostId,
        /// Whose relay.
        region: DerpRegionId,
        /// Who is not there.
        peer: HostId,
    },
}

/// What is under way.
#[derive(Debug)]
enum Flight<P> {
    Outside { src: SocketAddr, dst: SocketAddr, payload: P },
    Landed(Delivery<P>),
    ToRelay { region: DerpRegionId, from: HostId, to: HostId, payload: P },
}

/// The network, and all that is under way on it.
#[derive(Debug)]
pub struct Network<P> {
    /// The time, which the test lets pass.
    pub now: Instant,
    /// Where all chance comes from.
    pub dice: Dice,
    /// Datagrams between sites that are lost, in a hundred.
    pub loss_percent: u64,
    /// Relays that run.
    pub regions: BTreeSet<DerpRegionId>,
    /// Between which sites no datagrams pass, in this direction.
    pub cuts: BTreeSet<(SiteId, SiteId)>,
    sites: Vec<Site>,
    hosts: Vec<Host>,
    flights: BTreeMap<(Instant, u64), Flight<P>>,
    flown: u64,
    /// When the last message that one host relays to another arrives: relays keep the order.
    relayed: BTreeMap<(HostId, HostId), Instant>,
}

impl<P> Network<P> {
    /// An empty network.
    pub fn new(seed: u64, now: Instant) -> Self {
        Self {
            now,
            dice: Dice::new(seed),
            loss_percent: 0,
            regions: BTreeSet::new(),
            cuts: BTreeSet::new(),
            sites: Vec::new(),
            hosts: Vec::new(),
            flights: BTreeMap::new(),
            flown: 0,
            relayed: BTreeMap::new(),
        }
    }

    /// Adds a site.
    pub fn add_site(&mut self, gateway: Gateway) -> SiteId {
        let number = u16::try_from(self.sites.len()).expect("not that many sites");
        let [high, low] = number.to_be_bytes();
        self.sites.push(Site {
            gateway,
            outside: Ipv4Addr::new(30, high, low, 1),
            distance: self.dice.ms(1, 80),
            is_offline: false,
            sessions: Vec::new(),
            ports_given: 0,
        });
        SiteId(number.into())
    }

    /// Adds a host to a site, connected to its home relay if it has one.
    pub fn add_host(&mut self, site: SiteId, home: Option<DerpRegionId>) -> HostId {
        let addr = self.free_addr(site);
        self.hosts.push(Host { site, addr, home, relayed_at: BTreeMap::new() });
        HostId(self.hosts.len() - 1)
    }

    /// Gives a host an address of another site.
    pub fn move_host(&mut self, host: HostId, site: SiteId) {
        self.hosts[host.0].addr = self.free_addr(site);
        self.hosts[host.0].site = site;
    }

    /// Connects a host to another home relay.
    pub fn set_home(&mut self, host: HostId, home: Option<DerpRegionId>) {
        self.hosts[host.0].home = home;
    }

    /// Cuts a site off, or connects it again.
    pub fn set_offline(&mut self, site: SiteId, is_offline: bool) {
        self.sites[site.0].is_offline = is_offline;
    }

    /// The site of a host.
    pub fn site_of(&self, host: HostId) -> SiteId {
        self.hosts[host.0].site
    }

    /// The gateway of a host.
    pub fn gateway_of(&self, host: HostId) -> Gateway {
        self.sites[self.hosts[host.0].site.0].gateway
    }

    /// The home relay of a host.
    pub fn home_of(&self, host: HostId) -> Option<DerpRegionId> {
        self.hosts[host.0].home
    }

    /// The addresses at which a host believes to be reachable: its own, and the one that a STUN server sees.
    pub fn endpoints(&mut self, host: HostId) -> Vec<SocketAddr> {
        let inside = self.hosts[host.0].addr;
        let mut endpoints = vec![inside];
        let outside = self.leave(self.hosts[host.0].site, inside, STUN_SERVER);
        endpoints.extend(outside.filter(|outside| *outside != inside));
        endpoints
    }

    /// Whether pings from both ends can open a direct path.
    pub fn can_be_direct(&self, a: HostId, b: HostId) -> bool {
        let (site_a, site_b) = (self.site_of(a), self.site_of(b));
        let (ours, theirs) = (self.gateway_of(a), self.gateway_of(b));
        if site_a == site_b {
            return true;
        }
        let is_blocked = self.cuts.contains(&(site_a, site_b))
            || self.cuts.contains(&(site_b, site_a))
            || !ours.passes_udp
            || !theirs.passes_udp;
        let takes_from_anywhere = |gateway: Gateway| gateway.filtering != Filtering::Endpoint;
        let can_meet = match (ours.mapping, theirs.mapping) {
            (Mapping::Dependent, Mapping::Dependent) => false,
            (Mapping::Dependent, Mapping::None | Mapping::Independent) => {
                takes_from_anywhere(theirs)
            }
            (Mapping::None | Mapping::Independent, Mapping::Dependent) => takes_from_anywhere(ours),
            (Mapping::None | Mapping::Independent, Mapping::None | Mapping::Independent) => true,
        };
        !is_blocked && can_meet
    }

    /// The own address of a host.
    pub fn addr_of(&self, host: HostId) -> SocketAddr {
        self.hosts[host.0].addr
    }

    /// Asks a server outside as which address a host is seen there; `None` if it does not hear the host. Takes as long as is told
    /// beside.
    pub fn reflect(&mut self, host: HostId, server: SocketAddr) -> Option<(SocketAddr, Duration)> {
        let Host { site, addr, .. } = self.hosts[host.0];
        let seen_as = self.leave(site, addr, server)?;
        let is_lost = self.dice.chance(self.loss_percent);
        (!is_lost).then(|| (seen_as, self.sites[site.0].distance * 2))
    }

    /// Sends a datagram.
    pub fn send_udp(&mut self, from: HostId, dst: SocketAddr, payload: P) {
        let Host { site, addr, .. } = self.hosts[from.0];
        let neighbour = self.hosts.iter().position(|host| host.site == site && host.addr == dst);
        if let Some(to) = neighbour {
            let landed = Delivery::Udp { to: HostId(to), src: addr, payload };
            return self.fly(LAN_LATENCY, Flight::Landed(landed));
        }
        let Some(src) = self.leave(site, addr, dst) else { return };
        let Some(target) = self.site_at(dst) else { return };
        if self.cuts.contains(&(site, target)) || self.dice.chance(self.loss_percent) {
            return;
        }
        let latency = self.sites[site.0].distance + self.sites[target.0].distance;
        let jitter = latency * u32::try_from(self.dice.below(25)).expect("small") / 100;
        self.fly(latency + jitter, Flight::Outside { src, dst, payload });
    }

    /// Sends a message through a relay.
    pub fn send_relay(&mut self, from: HostId, region: DerpRegionId, to: HostId, payload: P) {
        let site = &self.sites[self.hosts[from.0].site.0];
        if site.is_offline || !self.regions.contains(&region) {
            return;
        }
        self.hosts[from.0].relayed_at.insert(region, self.now);
        let target = &self.sites[self.hosts[to.0].site.0];
        let latency = site.distance + target.distance + self.dice.ms(5, 60);
        let last = self.relayed.get(&(from, to)).copied().unwrap_or(self.now);
        let at = last.max(self.now + latency);
        self.relayed.insert((from, to), at);
        self.fly(at - self.now, Flight::ToRelay { region, from, to, payload });
    }

    /// When the next thing under way arrives.
    pub fn next_at(&self) -> Option<Instant> {
        self.flights.first_key_value().map(|((at, _), _)| *at)
    }

    /// What arrives now, if a host gets it.
    pub fn land(&mut self) -> Option<Delivery<P>> {
        let (_, flight) = self.flights.pop_first()?;
        match flight {
            Flight::Landed(delivery) => Some(delivery),
            Flight::Outside { src, dst, payload } => {
                let inside = self.enter(src, dst)?;
                let site = self.site_at(dst)?;
                let is_dst = |host: &Host| host.site == site && host.addr == inside;
                let to = HostId(self.hosts.iter().position(is_dst)?);
                Some(Delivery::Udp { to, src, payload })
            }
            Flight::ToRelay { region, from, to, payload } => {
                let target = &self.hosts[to.0];
                let sent_at = target.relayed_at.get(&region);
                let is_connected = target.home == Some(region)
                    || sent_at.is_some_and(|at| self.now < *at + RELAY_IDLE);
                let is_there = is_connected && !self.sites[target.site.0].is_offline;
                if !self.regions.contains(&region) {
                    None
                } else if is_there {
                    Some(Delivery::Relay { to, region, payload })
                } else {
                    Some(Delivery::RelayGone { to: from, region, peer: to })
                }
            }
        }
    }

    fn fly(&mut self, latency: Duration, flight: Flight<P>) {
        self.flown += 1;
        self.flights.insert((self.now + latency, self.flown), flight);
    }

    /// An address of a site that no host has. Sites that translate all have the same ones.
    fn free_addr(&self, site: SiteId) -> SocketAddr {
        let [_, high, low, _] = self.sites[site.0].outside.octets();
        let [first, second, third] = match self.sites[site.0].gateway.mapping {
            Mapping::None => [20, high, low],
            Mapping::Independent | Mapping::Dependent => [10, 0, 0],
        };
        let addr = |last| SocketAddr::from(([first, second, third, last], PORT));
        let is_free = |addr: &SocketAddr| {
            !self.hosts.iter().any(|host| host.site == site && host.addr == *addr)
        };
        (1..=255).map(addr).find(is_free).expect("not that many hosts")
    }

    fn site_at(&self, outside: SocketAddr) -> Option<SiteId> {
        let translates = self.sites.iter().position(|site| site.outside == outside.ip());
        let host = self.hosts.iter().find(|host| {
            host.addr == outside && self.sites[host.site.0].gateway.mapping == Mapping::None
        });
        translates.map(SiteId).or(host.map(|host| host.site))
    }

    /// The address under which a datagram leaves a site, if it may.
    fn leave(&mut self, site: SiteId, inside: SocketAddr, dst: SocketAddr) -> Option<SocketAddr> {
        let now = self.now;
        let site = &mut self.sites[site.0];
        if !site.gateway.passes_udp || site.is_offline {
            return None;
        }
        site.sessions.retain(|session| session.sent.values().any(|at| now < *at + MAPPING_LIFE));
        let only_for = (site.gateway.mapping == Mapping::Dependent).then_some(dst);
        let is_same = |it: &Session| it.inside == inside && it.only_for == only_for;
        let known = site.sessions.iter().position(is_same);
        let index = known.unwrap_or(site.sessions.len());
        if known.is_none() {
            let outside = site.outside_of(inside);
            site.sessions.push(Session { inside, only_for, outside, sent: BTreeMap::new() });
        }
        let session = &mut site.sessions[index];
        session.sent.insert(dst, now);
        Some(session.outside)
    }

    /// The host's own address for a datagram from outside, if the gateway lets it in.
    fn enter(&self, src: SocketAddr, dst: SocketAddr) -> Option<SocketAddr> {
        let site = &self.sites[self.site_at(dst)?.0];
        if !site.gateway.passes_udp || site.is_offline {
            return None;
        }
        let Gateway { mapping, filtering, .. } = site.gateway;
        if mapping == Mapping::None && filtering == Filtering::Open {
            return Some(dst);
        }
        let has_sent = |session: &&Session| {
            let lets_in = |(to, at): (&SocketAddr, &Instant)| {
                let is_known = match filtering {
                    Filtering::Open => true,
                    Filtering::Address => to.ip() == src.ip(),
                    Filtering::Endpoint => *to == src,
                };
                is_known && self.now < *at + MAPPING_LIFE
            };
            session.outside == dst && session.sent.iter().any(lets_in)
        };
        site.sessions.iter().find(has_sent).map(|session| session.inside)
    }
}

impl Site {
    fn outside_of(&mut self, inside: SocketAddr) -> SocketAddr {
        let SocketAddr::V4(inside) = inside else { unreachable!("all is IPv4") };
        match self.gateway.mapping {
            Mapping::None => inside.into(),
            Mapping::Independent => {
                let port = 20_000 + u16::from(inside.ip().octets()[3]);
                (self.outside, port).into()
            }
            Mapping::Dependent => {
                self.ports_given += 1;
                (self.outside, 30_000 + self.ports_given).into()
            }
        }
    }
}
