//! The machine: which way packets to one peer take, and which disco messages find a better one.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mesh_disco::TransactionId;
use mesh_wire::DerpRegionId;

use crate::best::Best;
use crate::candidates::Candidates;
use crate::pings::Pings;
use crate::relays::Relays;
use crate::search::Search;
use crate::{Disco, Route, Status, Transmit, Way};

/// How often the path in use is pinged while the session is active.
pub const HEARTBEAT_PERIOD: Duration = Duration::from_secs(3);

/// How long after the last data the session counts as active. An idle one costs nothing: no message, no timer.
pub const SESSION_IDLE: Duration = Duration::from_secs(45);

/// Pings that wait to be answered; more are ignored. Callers send answers at once, so that hardly two wait.
pub const PONGS_MAX: usize = 8;

/// A round trip up to which a trusted path is not worth bettering.
const GOOD_ENOUGH: Duration = Duration::from_millis(5);

/// The address that stands for relays where an address must stand; the port is the region.
///
/// Source: tailscale `tailcfg/derpmap.go`, `DerpMagicIP`.
const RELAY_IP: Ipv4Addr = Ipv4Addr::new(127, 3, 3, 40);

/// Which way packets to one peer take.
///
/// Inputs are the `handle_` calls; only what the peer's key has sealed may be handed to them. After each, and
/// whenever [`poll_timeout`](Self::poll_timeout) says, the caller sends what
/// [`poll_transmit`](Self::poll_transmit) has for it. `now` never goes back from call to call.
///
/// A session begins with data for the peer and lasts until none was sent for [`SESSION_IDLE`]. In a session the
/// path in use is pinged every [`HEARTBEAT_PERIOD`]. While no direct path is trusted, all candidates are pinged
/// and the peer is called every [`SEARCH_PERIOD`](crate::SEARCH_PERIOD).
///
/// Takes some hundred bytes, and outside sessions no timer.
#[derive(Debug)]
pub struct PeerPath {
    candidates: Candidates,
    relays: Relays,
    best: Option<Best>,
    search: Search,
    pings: Pings,
    /// What is to be answered, the oldest first, at most [`PONGS_MAX`].
    pongs: Vec<(Way, TransactionId)>,
    /// When data was last sent.
    data_at: Option<Instant>,
    /// When the next heartbeat is due; there is one exactly while there is a session.
    heartbeat_at: Option<Instant>,
}

impl PeerPath {
    /// A peer of whom nothing is known.
    pub fn new(now: Instant) -> Self {
        Self {
            candidates: Candidates::default(),
            relays: Relays::default(),
            best: None,
            search: Search::default(),
            pings: Pings::new(now),
            pongs: Vec::new(),
            data_at: None,
            heartbeat_at: None,
        }
    }

    /// Takes over the peer's endpoints from the netmap.
    ///
    /// If the path in use was among them and is not any more, it has to prove itself: the peer may have moved.
    pub fn handle_endpoints(&mut self, endpoints: &[SocketAddr], now: Instant) {
        let (best, is_searching) = (self.best_addr(), self.is_searching(now));
        if self.candidates.set_endpoints(endpoints, best, is_searching, now) {
            self.doubt_best(now);
        }
    }

    /// Takes over the peer's home region from the netmap.
    pub fn handle_home(&mut self, region: Option<DerpRegionId>) {
        self.relays.set_home(region);
    }

    /// Notes that data for the peer is about to be sent by [`route`](Self::route).
    pub fn handle_sending(&mut self, now: Instant) {
        self.data_at = Some(now);
        self.heartbeat_at.get_or_insert(now + HEARTBEAT_PERIOD);
        if !self.is_trusted(now) {
            self.search(now);
        }
    }

    /// Notes that data of the peer came.
    ///
    /// It does not prolong trust: that what is sent there arrives, it does not prove.
    pub fn handle_received(&mut self, way: Way, now: Instant) {
        // Most packets are of this kind, and need no search through the candidates.
        if self.best_addr().is_none_or(|best| way != Way::Udp(best)) {
            self.note_heard(way, now);
        }
    }

    /// Answers a ping of the peer, and remembers where it came from.
    ///
    /// While a direct path is sought, the peer is pinged there too: as its ping came through, so may ours. Go
    /// waits for the next search.
    pub fn handle_ping(&mut self, way: Way, transaction: TransactionId, now: Instant) {
        if self.pongs.len() < PONGS_MAX {
            self.pongs.push((way, transaction));
        }
        self.note_heard(way, now);
        if let Way::Udp(addr) = way
            && self.is_searching(now)
        {
            self.candidates.want(addr);
        }
    }

    /// Judges a pong. Says whether it answered a ping.
    ///
    /// What is proven is the path to where the ping went, wherever the pong came from: a peer of several
    /// addresses may answer from another. Only one that came by relay proves nothing.
    pub fn handle_pong(&mut self, way: Way, transaction: TransactionId, now: Instant) -> bool {
        let asked = match way {
            Way::Udp(_) => self.pings.take(transaction, now),
            Way::Relay(_) => None,
        };
        let Some((to, latency)) = asked else { return false };
        if self.candidates.contains(to) {
            self.candidates.learn(to, self.best_addr(), false, now);
            self.take_up(to, latency, now);
        }
        true
    }

    /// Pings the peer at the endpoints it names, and at all others: it has just pinged this node, so that its
    /// firewall is open. A call by UDP is nothing, as in Go.
    ///
    /// A peer calls when it has lost its path to this node, so the path in use has to prove itself. Go goes on
    /// trusting it, and sends for up to 6.5 s to where a peer was that has moved.
    pub fn handle_call_me_maybe(&mut self, endpoints: &[SocketAddr], way: Way, now: Instant) {
        match way {
            Way::Udp(_) => return,
            Way::Relay(_) => self.note_heard(way, now),
        }
        for addr in endpoints {
            self.candidates.learn(*addr, self.best_addr(), false, now);
        }
        self.doubt_best(now);
        self.ping_all(now);
    }

    /// Notes that a relay does not hold the peer.
    pub fn handle_relay_gone(&mut self, region: DerpRegionId) {
        self.relays.note_gone(region);
    }

    /// Notes that a datagram to the peer could not be sent, as to a network that is not there.
    pub fn handle_send_failed(&mut self, addr: SocketAddr, now: Instant) {
        if self.best.take_if(|best| best.addr == addr).is_some() && self.is_searching(now) {
            self.search(now);
        }
    }

    /// Notes that this node's network is another, or that the peer has restarted with another disco key.
    ///
    /// What was proven is open again. The path in use carries data on beside the relay until it fails to
    /// answer, where Go drops it: often only one end has moved, and there may be no relay.
    pub fn handle_link_changed(&mut self, now: Instant) {
        self.pings.clear();
        self.search.restart();
        if let Some(best) = &mut self.best {
            best.distrust(now);
        }
        if self.is_searching(now) {
            self.search(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called; `None` while there is nothing to wait for.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ping_at = self.candidates.is_any_wanted().then(|| self.pings.available_at());
        let timers = [self.heartbeat_at, self.search.second_try_at(), ping_at];
        timers.into_iter().flatten().min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.heartbeat_at.is_some_and(|at| at <= now) {
            self.heartbeat(now);
        }
        if self.search.take_second_try(now) && self.is_searching(now) {
            self.candidates.want_all();
        }
    }

    /// The next message to send, until there is none. `fresh` draws the name of a ping: 12 random bytes.
    ///
    /// The call comes after the pings that open this node's firewall for what it brings about.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        fresh: &mut impl FnMut() -> TransactionId,
    ) -> Option<Transmit> {
        if !self.pongs.is_empty() {
            let (way, transaction) = self.pongs.remove(0);
            return Some(Transmit { way, disco: Disco::Pong { transaction, src: src_of(way) } });
        }
        if let Some(to) = self.next_ping(now) {
            let transaction = fresh();
            self.pings.note(transaction, to, now);
            return Some(Transmit { way: Way::Udp(to), disco: Disco::Ping { transaction } });
        }
        if !self.search.take_call() {
            return None;
        }
        let way = Way::Relay(self.relays.choose()?);
        Some(Transmit { way, disco: Disco::CallMeMaybe })
    }

    /// Where data for the peer goes.
    pub fn route(&self, now: Instant) -> Route {
        let best = self.best.as_ref().filter(|best| !best.is_lost(now));
        let is_enough = best.is_some_and(|best| best.is_trusted(now));
        Route {
            udp: best.map(|best| best.addr),
            relay: self.relays.choose().filter(|_| !is_enough),
        }
    }

    /// What there is to tell.
    pub fn status(&self, now: Instant) -> Status {
        let route = self.route(now);
        let latency = self.best.as_ref().map(|best| best.latency).filter(|_| route.udp.is_some());
        Status { route, latency, is_active: self.is_active(now) }
    }

    fn best_addr(&self) -> Option<SocketAddr> {
        self.best.as_ref().map(|best| best.addr)
    }

    fn is_active(&self, now: Instant) -> bool {
        self.data_at.is_some_and(|at| now.saturating_duration_since(at) <= SESSION_IDLE)
    }

    fn is_trusted(&self, now: Instant) -> bool {
        self.best.as_ref().is_some_and(|best| best.is_trusted(now))
    }

    /// Whether a direct path is wanted and none is trusted.
    fn is_searching(&self, now: Instant) -> bool {
        self.heartbeat_at.is_some() && !self.is_trusted(now)
    }

    fn note_heard(&mut self, way: Way, now: Instant) {
        match way {
            Way::Udp(addr) => {
                let (best, is_searching) = (self.best_addr(), self.is_searching(now));
                self.candidates.learn(addr, best, is_searching, now);
            }
            Way::Relay(region) => self.relays.note_heard(region),
        }
    }

    /// Uses a path that has just answered, if it is the one in use or better.
    fn take_up(&mut self, addr: SocketAddr, latency: Duration, now: Instant) {
        let stays = |best: &Best| {
            best.addr != addr && best.is_trusted(now) && !best.yields_to(addr, latency)
        };
        if !self.best.as_ref().is_some_and(stays) {
            self.best = Some(Best::new(addr, latency, now));
        }
    }

    /// Has the path in use prove itself. What it was asked before does not count: the answer may have left
    /// before there was reason to doubt.
    fn doubt_best(&mut self, now: Instant) {
        let Some(best) = &mut self.best else { return };
        best.doubt(now);
        self.pings.forget(best.addr);
        if self.heartbeat_at.is_some() {
            self.candidates.want(best.addr);
        }
    }

    /// Keeps the path in use alive and looks for a better one, or ends the session.
    fn heartbeat(&mut self, now: Instant) {
        if !self.is_active(now) {
            self.heartbeat_at = None;
            self.pings.clear();
            self.pongs = Vec::new();
            return;
        }
        self.heartbeat_at = Some(now + HEARTBEAT_PERIOD);
        if let Some(addr) = self.best_addr() {
            self.candidates.want(addr);
        }
        let is_good_enough = self.best.as_ref().is_some_and(|best| best.latency <= GOOD_ENOUGH);
        let seeks_better = !is_good_enough && self.search.is_upgrade_due(now);
        if seeks_better || !self.is_trusted(now) {
            self.search(now);
        }
    }

    fn search(&mut self, now: Instant) {
        self.best.take_if(|best| best.is_lost(now));
        if self.search.go_on(now) {
            self.ping_all(now);
        }
    }

    fn ping_all(&mut self, now: Instant) {
        self.search.note_round(now);
        self.candidates.prune(self.best_addr(), now);
        self.candidates.want_all();
    }

    /// The next address to ping, if one more ping may leave.
    fn next_ping(&mut self, now: Instant) -> Option<SocketAddr> {
        if !self.candidates.is_any_wanted() || !self.pings.take_leave(now) {
            return None;
        }
        let to = self.candidates.take_wanted(self.best_addr())?;
        if let Some(best) = self.best.as_mut().filter(|best| best.addr == to) {
            best.note_ping(now);
        }
        Some(to)
    }
}

fn src_of(way: Way) -> SocketAddr {
    match way {
        Way::Udp(addr) => addr,
        Way::Relay(region) => (RELAY_IP, u16::try_from(region.0).unwrap_or_default()).into(),
    }
}

#[cfg(test)]
mod tests;
