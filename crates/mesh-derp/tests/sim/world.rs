//! Relays and their clients, and beside them what should come of it, in the most naive way.

mod mesh;
mod reads;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_derp::{
    Batch, ClientFrame, Counts, DropReason, KINDS, PeerPresent, Session, Table, Tally,
};
use mesh_keys::NodePublic;
use mesh_testkit::network::Dice;

use crate::ledger::{Fate, Ledger, Moment};
use crate::link::{Bounds, Link};
use crate::packet::{ConnectionId, Flow, Key, packet};
use crate::presence::Presence;

/// Where all clients come from.
const ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// A relay, and what it should have done.
#[derive(Debug, Default)]
struct Relay {
    table: Arc<Table>,
    presence: Presence,
    /// Packets that should wait for somebody, or have.
    routed: Batch,
    /// Packets that were written.
    written: Batch,
    /// Packets that were dropped though somebody was there, as the relay counts them.
    dropped: Batch,
    home_clients: i64,
}

impl Relay {
    fn count(&mut self, counts: &Counts) {
        self.home_clients += counts.home_clients;
        for reason in [DropReason::QueueFull, DropReason::DestinationGone] {
            add(&mut self.dropped, &counts.dropped[reason as usize]);
        }
    }
}

/// Relays and their clients.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) links: BTreeMap<ConnectionId, Link>,
    now: Instant,
    began_at: Instant,
    relays: Vec<Relay>,
    /// Whether the relays are a mesh.
    is_mesh: bool,
    /// The keys of all connections that there ever were.
    keys: Vec<Key>,
    ledger: Ledger,
    moment: Moment,
    /// All keys that ever connected: as many may send.
    senders: BTreeSet<Key>,
}

impl World {
    /// Some relays without clients.
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let (relays, is_mesh) = dice.pick(&[(1, false), (2, false), (2, true), (3, true)]);
        Self::with_relays(dice, relays, is_mesh)
    }

    /// So many relays without clients.
    pub(crate) fn with_relays(dice: Dice, relays: usize, is_mesh: bool) -> Self {
        let now = Instant::now();
        let mut world = Self {
            dice,
            links: BTreeMap::new(),
            now,
            began_at: now,
            relays: (0..relays).map(|_| Relay::default()).collect(),
            is_mesh,
            keys: Vec::new(),
            ledger: Ledger::default(),
            moment: 0,
            senders: BTreeSet::new(),
        };
        world.dial();
        world
    }

    /// Has a client connect to one of the relays.
    pub(crate) fn join(&mut self, key: Key) -> ConnectionId {
        let relay = self.dice.below(self.relays.len() as u64);
        let relay = usize::try_from(relay).expect("a relay");
        self.connect(key, relay, Bounds::CLIENT)
    }

    fn connect(&mut self, key: Key, relay: usize, bounds: Bounds) -> ConnectionId {
        let is_client = bounds == Bounds::CLIENT;
        let flags = if is_client { PeerPresent::REGULAR } else { PeerPresent::MESH_PEER };
        let peer = PeerPresent { key: public(key), addr: ADDR, flags };
        let it = &mut self.relays[relay];
        let session = Session::join(Arc::clone(&it.table), peer, self.now, || true);
        let session = session.expect("everybody is let in");
        let id = ConnectionId::try_from(self.keys.len()).expect("not that many connections");
        it.presence.join(key, id);
        self.keys.push(key);
        self.senders.insert(key);
        self.links.insert(id, Link::new(key, relay, session, bounds));
        id
    }

    /// Has a client send a packet to a key, and numbers it.
    pub(crate) fn send(
        &mut self,
        id: ConnectionId,
        to: Key,
        is_disco: bool,
        padding: usize,
    ) -> u32 {
        let flow = Flow { from: id, to, is_disco };
        let number = self.ledger.send(flow);
        let payload = packet(flow, number, padding);
        self.link(id).send(&ClientFrame::SendPacket { dst: public(to), payload: &payload });
        number
    }

    /// Ends a connection, of which the relay notices just now.
    pub(crate) fn end(&mut self, id: ConnectionId) {
        self.end_trunk(id);
        let mut link = self.links.remove(&id).expect("a live link");
        let counts = link.session.leave();
        let mut bytes = Vec::new();
        link.session.client().drain(&mut bytes, usize::MAX);
        assert!(bytes.is_empty(), "nothing waits for who has left");
        self.relays[link.relay].count(&counts);
        self.remove_way(link.relay, link.key, id);
    }

    /// Removes one way from a relay to a key. Some clients may be told that it was the last.
    fn remove_way(&mut self, relay: usize, key: Key, id: ConnectionId) {
        self.moment += 1;
        for told in self.relays[relay].presence.remove(key, id) {
            self.links.get_mut(&told).expect("a live link").gone_at.insert(key, self.moment);
        }
    }

    /// Cuts all connections of a key.
    pub(crate) fn cut(&mut self, id: ConnectionId, key: Key) {
        let relay = &self.relays[self.links[&id].relay];
        let connections = relay.presence.connections(key);
        assert_eq!(relay.table.cut(&public(key)), connections.len());
        for link in connections.iter().map(|id| &self.links[id]) {
            assert!(link.session.client().is_cut() && link.wakes.is_set(), "cut and not told");
        }
    }

    /// Has all that is under way arrive, all clients read, and the relays notice who has vanished.
    pub(crate) fn settle(&mut self) {
        self.ids(|link| link.has_vanished).into_iter().for_each(|id| self.end(id));
        loop {
            let clients = self.links.values_mut().filter(|link| link.trunk.is_none());
            clients.for_each(|link| (link.is_stalled, link.in_pipe) = (false, 0));
            let speakers = self.ids(|link| !link.to_relay.is_empty());
            for id in &speakers {
                self.relay_reads(*id, usize::MAX);
            }
            let writers = self.ids(Link::is_writer_ready);
            for id in &writers {
                self.relay_writes(*id);
            }
            let was_mesh_busy = self.settle_trunks();
            if speakers.is_empty() && writers.is_empty() && !was_mesh_busy {
                break;
            }
        }
        for (id, link) in &self.links {
            let mut bytes = Vec::new();
            link.session.client().drain(&mut bytes, usize::MAX);
            if let Some(trunk) = &link.trunk {
                trunk.end.relay().drain(&mut bytes, usize::MAX);
            }
            let is_idle = bytes.is_empty() && link.writing == 0;
            assert!(is_idle, "nobody was woken to write to {id}: {} bytes", bytes.len());
            assert_eq!(link.pong, None, "{id} waits for a pong");
        }
    }

    /// Checks that no more waits at a relay than may.
    fn check_memory(&self, index: usize) {
        let relay = &self.relays[index];
        for kind in 0..KINDS {
            let count = |of: fn(Tally) -> u64| {
                let gone = of(relay.written[kind]) + of(relay.dropped[kind]);
                let links = self.links.values().filter(|link| link.writer() == Some(index));
                let most: u64 = links.map(|link| of(link.waiting_max(kind))).sum();
                (of(relay.routed[kind]) - gone, most)
            };
            for (waiting, most) in [count(|tally| tally.packets), count(|tally| tally.bytes)] {
                assert!(waiting <= most, "{waiting} wait, and no more than {most} may");
            }
        }
    }

    /// Checks what must be so once all has settled.
    pub(crate) fn check_settled(&self) {
        for (index, relay) in self.relays.iter().enumerate() {
            for kind in 0..KINDS {
                let mut found = relay.written[kind];
                found += relay.dropped[kind];
                assert_eq!(found, relay.routed[kind], "written, or dropped and counted");
            }
            let at_home = self.links.values().filter(|link| link.relay == index && link.is_home);
            assert_eq!(relay.home_clients, i64::try_from(at_home.count()).expect("few"));
        }
        for (id, link) in &self.links {
            let presence = &self.relays[link.relay].presence;
            for (key, belief) in &link.beliefs {
                let is_doubted = link.doubted_at.get(key).is_some_and(|at| *at >= belief.heard_at);
                let is_right = presence.is_reached(*key) || !belief.is_there || is_doubted;
                assert!(is_right, "{id} was not told that {key} is gone");
            }
        }
        self.check_trunks();
    }

    /// Has every client send something to every other, and checks that all who are there get it and believe so.
    pub(crate) fn greet(&mut self) {
        let clients = self.ids(Link::is_client);
        let keys: BTreeSet<_> = clients.iter().map(|id| self.links[id].key).collect();
        for id in clients {
            let numbers = keys.iter().map(|to| (*to, self.send(id, *to, false, 0)));
            let numbers: Vec<_> = numbers.collect();
            self.settle();
            let Link { key, relay, .. } = self.links[&id];
            for (to, number) in numbers {
                let Some(receiver) = self.receiver(relay, to) else { continue };
                let fate = self.ledger.fate(Flow { from: id, to, is_disco: false }, number);
                assert_eq!(fate, Fate::Written(receiver), "greeting from {id} to {receiver}");
                let is_there = self.links[&receiver].beliefs[&key].is_there;
                assert!(is_there, "{receiver} believes that {key} is gone");
            }
        }
    }

    /// Who gets what is sent to a key at a relay, once all has settled.
    fn receiver(&self, relay: usize, key: Key) -> Option<ConnectionId> {
        let presence = &self.relays[relay].presence;
        presence.active(key).or_else(|| {
            let trunk = &self.links[&presence.trunk(key)?];
            self.relays[trunk.relay].presence.active(key)
        })
    }

    /// All links of which something is so.
    pub(crate) fn ids(&self, is_so: impl Fn(&Link) -> bool) -> Vec<ConnectionId> {
        self.links.iter().filter(|(_, link)| is_so(link)).map(|(id, _)| *id).collect()
    }

    pub(crate) fn link(&mut self, id: ConnectionId) -> &mut Link {
        self.links.get_mut(&id).expect("a live link")
    }

    pub(crate) fn pass_time(&mut self, span: Duration) {
        self.now += span;
    }
}

fn add(sum: &mut Batch, more: &Batch) {
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += *more);
}

/// The key of a number.
fn public(key: Key) -> NodePublic {
    let [high, low] = key.to_be_bytes();
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&[high, low]);
    NodePublic::from_bytes(bytes)
}

/// The number of a key.
fn number(key: NodePublic) -> Key {
    let [high, low, ..] = *key.as_bytes();
    Key::from_be_bytes([high, low])
}
