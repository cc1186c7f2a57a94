//! The core: peers, tunnels, paths, the packet filter and what the control server has said, without sockets and clock.
//!
//! What comes by UDP or through a relay is told apart (disco, STUN, WireGuard), decrypted, checked and meant for the TCP/IP
//! stack; what the stack wants to send goes the other way. Messages of the control server change the tables in place. All that
//! is to be done in consequence stands in the [`Outbox`], which the engine empties.

mod disco;
mod expiry;
mod gate;
mod machine;
mod netmap;
mod outbox;
mod pings;
mod query;
mod random;
#[cfg(test)]
mod simulation;
mod surroundings;
mod tsmp;
mod tunnel;
mod ways;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mesh_client::Netmap;
use mesh_derp::stun;
use mesh_filter::{Packet, Transport};
#[cfg(test)]
use mesh_keys::DiscoPublic;
use mesh_keys::{DiscoPrivate, NodePrivate, NodePublic};
use mesh_path::Way;
use mesh_peers::{PeerIndex, PeerList, PeerTable};
use mesh_wire::{DerpRegionId, EndpointType};
use mesh_wireguard::{Output, TICK, Tunnels};
use tracing::trace;

use crate::control::Report;
use crate::netcheck::Netcheck;
use crate::port_mapping::PortMapped;

use expiry::Expiry;
use gate::Gate;
pub(crate) use gate::Routing;
pub(crate) use outbox::{Batch, Effect, Outbox, Recipient, Relayed, Run};
pub(crate) use pings::PingId;
pub use pings::Pong;
pub use query::NetcheckReport;
pub(crate) use random::Random;
use tunnel::WireGuard;
use ways::Ways;

/// How often what is seldom needed is looked after: addresses that may have changed, servers that may be asked again.
const CHORES_PERIOD: Duration = Duration::from_secs(15);

/// The node.
#[derive(Debug)]
pub(crate) struct Core<T = Tunnels> {
    pub(crate) outbox: Outbox,
    /// Whether anybody wants to hear events.
    pub(crate) is_watched: bool,
    gate: Gate,
    /// The list of all peers whose parts come one by one.
    list: Option<PeerList>,
    /// All that the control server says but the peers.
    netmap: Netmap,
    /// Whether the next message is the first of its session.
    begins: bool,
    peers: PeerTable,
    expiry: Expiry,
    tunnels: T,
    ways: Ways,
    pings: pings::Pings,
    netcheck: Netcheck,
    home: Option<DerpRegionId>,
    /// The last home whose relay has let the node in.
    connected_home: Option<DerpRegionId>,
    /// The STUN servers that were found last.
    stun_servers: StunServers,
    /// Where peers on the same networks may reach the node.
    local_endpoints: Vec<(SocketAddr, EndpointType)>,
    /// Where its gateway lets others reach it.
    port_mapped: PortMapped,
    report: Report,
    tick_at: Option<Instant>,
    chores_at: Instant,
}

pub(crate) type StunServers = Vec<(DerpRegionId, SocketAddr)>;

impl<T: WireGuard> Core<T> {
    pub(crate) fn new(
        private: &NodePrivate,
        disco: DiscoPrivate,
        routing: Routing,
        random: Random,
        now: Instant,
    ) -> Self {
        Self {
            outbox: Outbox::default(),
            is_watched: false,
            gate: Gate::new(routing),
            list: None,
            netmap: Netmap::default(),
            begins: true,
            peers: PeerTable::new(),
            expiry: Expiry::default(),
            tunnels: T::new(private),
            ways: Ways::new(private.public(), disco, random),
            pings: pings::Pings::default(),
            netcheck: Netcheck::default(),
            home: None,
            connected_home: None,
            stun_servers: Vec::new(),
            local_endpoints: Vec::new(),
            port_mapped: PortMapped::default(),
            report: Report::default(),
            tick_at: None,
            chores_at: now,
        }
    }

    /// Reaches peers through relays alone, if told so.
    #[must_use]
    pub(crate) fn never_direct(mut self, never_direct: bool) -> Self {
        self.ways.never_direct = never_direct;
        self
    }

    /// Begins anew with another node key.
    pub(crate) fn change_key(&mut self, private: &NodePrivate, now: Instant) {
        self.tunnels = T::new(private);
        self.ways.change_key(private);
        self.review_home(now);
    }

    /// The key by which peers know the node's disco messages.
    #[cfg(test)]
    fn disco_key(&self) -> DiscoPublic {
        self.ways.disco_key()
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn next_timeout(&self) -> Instant {
        let waiting = [
            self.tick_at,
            self.ways.next_timeout(),
            self.netcheck.settles_at(),
            self.expiry.next_timeout(),
        ];
        waiting.into_iter().flatten().fold(self.chores_at, Instant::min)
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.tick_at.is_some_and(|at| now >= at) {
            self.tick(now);
        }
        self.ways.handle_timeouts(&self.peers, now, &mut self.outbox);
        if self.netcheck.settles_at().is_some_and(|at| now >= at) {
            self.review_home(now);
        }
        if self.expiry.next_timeout().is_some_and(|at| now >= at) {
            self.review_expiry(now);
        }
        if now >= self.chores_at {
            self.chores_at = now + CHORES_PERIOD;
            self.look_around(now);
        }
    }

    /// Lets time pass in the tunnels.
    fn tick(&mut self, now: Instant) {
        let Self { tunnels, ways, peers, outbox, .. } = self;
        tunnels.handle_tick(now, |output| emit(output, ways, peers, now, None, outbox));
        self.tick_at = self.tunnels.is_active().then(|| now + TICK);
    }

    /// Takes a datagram, of `relayed` if a relay says so.
    pub(crate) fn handle_datagram(
        &mut self,
        datagram: &[u8],
        way: Way,
        relayed: Option<NodePublic>,
        now: Instant,
    ) {
        if let Way::Udp(from) = way
            && let Ok((transaction, seen_as)) = stun::parse_binding_response(datagram)
        {
            return self.handle_stun_answer(&transaction, seen_as, from, now);
        }
        if self.ways.never_direct && matches!(way, Way::Udp(_)) {
            return;
        }
        if mesh_disco::is_disco(datagram) {
            let Self { ways, peers, outbox, .. } = self;
            let pong = ways.handle_disco(peers, datagram, way, relayed, now, outbox);
            if let Some((peer, transaction)) = pong
                && let Some((id, pong)) = self.pings.handle_disco(transaction, peer, way, now)
            {
                self.outbox.effects.push(Effect::Pong(id, pong));
            }
            return;
        }
        self.decrypt(datagram, way, now);
    }

    fn decrypt(&mut self, datagram: &[u8], way: Way, now: Instant) {
        let from = match way {
            Way::Udp(from) => Some(from),
            Way::Relay(_) => None,
        };
        let mut messages = Vec::new();
        let Self { tunnels, ways, peers, gate, outbox, .. } = self;
        let is_peer =
            |key: &NodePublic| peers.by_key(key).is_some_and(|index| is_valid(peers, index));
        let ip = from.map(|from| from.ip());
        let result = tunnels.decapsulate(ip, datagram, now, is_peer, |output| {
            let Output::Packet { peer, bytes } = output else {
                return emit(output, ways, peers, now, from, outbox);
            };
            let Some(index) = peers.by_key(&peer) else { return };
            let bytes = gate.unmasked(bytes, index, peers);
            match gate.admit(&bytes, index, peers, now) {
                Some(Transport::Tsmp) => messages.push((index, bytes.into_owned())),
                Some(_) => outbox.accepted.push(&bytes, ()),
                None => {}
            }
        });
        match result {
            Ok(key) => {
                if let Some(index) = self.peers.by_key(&key) {
                    let Self { ways, peers, outbox, .. } = self;
                    ways.handle_received(peers, index, way, datagram.len(), now, outbox);
                }
                self.tick_at.get_or_insert(now + TICK);
            }
            Err(error) => trace!(%error, "datagram dropped"),
        }
        for (index, packet) in messages {
            self.handle_tsmp(index, &packet, way, now);
        }
    }

    /// Answers a ping of a peer, or takes a pong.
    fn handle_tsmp(&mut self, index: PeerIndex, packet: &[u8], way: Way, now: Instant) {
        match tsmp::parse(packet) {
            Some(tsmp::Message::Ping(cookie)) => {
                let Ok(Packet { source, destination, .. }) = Packet::parse(packet) else { return };
                let pong = tsmp::Message::Pong(cookie);
                if let Some(pong) = tsmp::encode(pong, destination.ip(), source.ip()) {
                    self.send_packet(&pong, now);
                }
            }
            Some(tsmp::Message::Pong(cookie)) => {
                if let Some((id, pong)) = self.pings.handle_tsmp(cookie, index, way, now) {
                    self.outbox.effects.push(Effect::Pong(id, pong));
                }
            }
            None => {}
        }
    }

    /// Encrypts a packet for whoever its destination belongs to. What is for the node itself comes back at once.
    pub(crate) fn send_packet(&mut self, bytes: &[u8], now: Instant) {
        let Ok(packet) = Packet::parse(bytes) else { return };
        self.send(&packet, bytes, now);
    }

    fn send(&mut self, packet: &Packet, bytes: &[u8], now: Instant) {
        let destination = packet.destination.ip();
        if self.gate.addresses.contains(&destination) {
            return self.outbox.accepted.push(bytes, ());
        }
        let Some(index) = self.route_to(destination) else {
            trace!("packet to nobody dropped");
            return;
        };
        let Some(key) = self.peers.get(index).map(|peer| peer.key) else { return };
        let Self { tunnels, ways, peers, gate, outbox, .. } = self;
        gate.flows.note_outgoing(packet, now);
        let bytes = gate.masked(bytes, index, peers);
        tunnels.encapsulate(&key, &bytes, now, |output| {
            emit(output, ways, peers, now, None, outbox);
        });
        self.tick_at.get_or_insert(now + TICK);
    }

    /// Notes that an address of a peer cannot be sent to.
    pub(crate) fn handle_send_failed(&mut self, peer: PeerIndex, to: SocketAddr, now: Instant) {
        self.ways.handle_send_failed(peer, to, now, &mut self.outbox);
    }

    /// Notes that a region's relay has let the node in: peers can reach it there.
    pub(crate) fn handle_relay_connected(&mut self, region: DerpRegionId) {
        if self.home == Some(region) && self.connected_home != Some(region) {
            self.connected_home = Some(region);
            self.update_report();
        }
    }

    /// Notes that a region's relay does not hold a peer.
    pub(crate) fn handle_peer_gone(&mut self, region: DerpRegionId, key: &NodePublic) {
        if let Some(index) = self.peers.by_key(key) {
            self.ways.handle_relay_gone(index, region);
        }
    }

    /// Asks a peer for a disco pong. The answer is an [`Effect::Pong`].
    pub(crate) fn ping_disco(&mut self, address: IpAddr, now: Instant) -> Option<PingId> {
        let (id, index) = (self.pings.begin(), self.route_to(address)?);
        for transaction in self.ways.ping(&self.peers, index, now, &mut self.outbox) {
            self.pings.note_disco(transaction, id, index, now);
        }
        Some(id)
    }

    /// Asks the far end of a peer's tunnel for a pong. The answer is an [`Effect::Pong`].
    pub(crate) fn ping_tsmp(&mut self, address: IpAddr, now: Instant) -> Option<PingId> {
        let (id, index) = (self.pings.begin(), self.route_to(address)?);
        let own = self.gate.own_address(address.is_ipv4())?;
        let cookie = self.ways.random().bytes()?;
        let packet = tsmp::encode(tsmp::Message::Ping(cookie), own, address)?;
        self.send_packet(&packet, now);
        self.pings.note_tsmp(cookie, id, index, now);
        Some(id)
    }

    /// The peer that an address is reached through.
    fn route_to(&self, address: IpAddr) -> Option<PeerIndex> {
        self.gate.route_to(&self.peers, address)
    }

    fn update_report(&mut self) {
        let seen_as = self.netcheck.seen_as().map(|address| (address, EndpointType::STUN));
        let mapped = self.port_mapped.endpoint.map(|address| (address, EndpointType::PORTMAPPED));
        // Of an address that is known in several ways the first is told.
        let local = self.local_endpoints.iter().copied();
        let mut endpoints: Vec<_> = local.chain(mapped).chain(seen_as).collect();
        endpoints.sort_by_key(|(address, _)| *address);
        endpoints.dedup_by_key(|(address, _)| *address);
        self.ways.set_endpoints(endpoints.iter().map(|(address, _)| *address).collect());
        // A home that is not connected yet would lead peers astray.
        let home = self.connected_home.unwrap_or_default();
        // Latencies alone are no news: they change all the time.
        let services = self.port_mapped.services;
        let Report { home: told_home, endpoints: told, port_mapping, .. } = &self.report;
        if (told_home, told, port_mapping) != (&home, &endpoints, &services) {
            let latencies = self.netcheck.latencies();
            self.report = Report { endpoints, home, latencies, port_mapping: services };
            self.outbox.effects.push(Effect::Report(self.report.clone()));
        }
    }
}

/// Whether a peer may be spoken to at all: an expired one has to log in first.
fn is_valid(peers: &PeerTable, index: PeerIndex) -> bool {
    peers.get(index).is_some_and(|peer| !peer.expired)
}

/// Sends what a tunnel has given. `from` is where the datagram came from that it answers.
fn emit(
    output: Output<'_>,
    ways: &mut Ways,
    peers: &PeerTable,
    now: Instant,
    from: Option<SocketAddr>,
    outbox: &mut Outbox,
) {
    match output {
        Output::Datagram { peer, bytes } => {
            if let Some(index) = peers.by_key(&peer) {
                ways.send(peers, index, bytes, now, outbox);
            }
        }
        Output::Cookie(bytes) => {
            if let Some(to) = from {
                outbox.datagrams.push(bytes, Recipient { to, peer: None });
            }
        }
        Output::Packet { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a node without peers sends these addresses through the tailnet.
    fn routed(routing: Routing) -> [bool; 2] {
        let private = NodePrivate::from_bytes([1; 32]);
        let disco = DiscoPrivate::from_bytes([2; 32]);
        let random = Random::new(|_| true);
        let core = Core::<Tunnels>::new(&private, disco, routing, random, Instant::now());
        ["198.51.100.1", "100.64.0.9"].map(|ip| core.has_route(ip.parse().expect("an address")))
    }

    #[test]
    fn a_mapped_port_is_told_as_such_and_no_longer_when_it_is_gone() {
        let private = NodePrivate::from_bytes([1; 32]);
        let disco = DiscoPrivate::from_bytes([2; 32]);
        let random = Random::new(|_| true);
        let mut core =
            Core::<Tunnels>::new(&private, disco, Routing::default(), random, Instant::now());
        let [own, public] = ["192.168.1.20:41641", "203.0.113.7:8873"].map(str::parse);
        let (own, public) = (own.expect("an address"), public.expect("an address"));
        core.handle_local_endpoints(vec![(own, EndpointType::LOCAL)]);
        core.handle_port_mapped(PortMapped { endpoint: Some(public), services: None });
        let told = [(own, EndpointType::LOCAL), (public, EndpointType::PORTMAPPED)];
        assert_eq!(core.report.endpoints, told);
        core.handle_port_mapped(PortMapped::default());
        assert_eq!(core.report.endpoints, told[..1]);
        let told = core.outbox.effects.iter();
        assert_eq!(told.filter(|effect| matches!(effect, Effect::Report(_))).count(), 3);
    }

    #[test]
    fn nothing_goes_around_an_exit_node_that_is_not_there() {
        assert_eq!(routed(Routing::default()), [false, false]);
        let exit_node = Some([100, 64, 0, 9].into());
        assert_eq!(routed(Routing { exit_node, ..Routing::default() }), [true, false]);
    }
}
