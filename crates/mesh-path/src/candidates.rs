//! The addresses at which a peer may be reachable, and which of them are to be pinged.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Endpoints of a netmap that are tried; more are ignored.
pub const NETMAP_ENDPOINTS_MAX: usize = 32;

/// Addresses beside those that are remembered: from calls, or where messages came from. The next one takes the
/// place of the one that was heard of longest ago.
pub const LEARNT_MAX: usize = 16;

/// How long an address that is not in the netmap is remembered after the peer was heard there, or named it.
const LEARNT_FOR: Duration = Duration::from_secs(45);

/// The addresses at which a peer may be reachable.
///
/// At most [`NETMAP_ENDPOINTS_MAX`] are in the netmap, and at most [`LEARNT_MAX`] are not. In the calls below,
/// `best` is the path in use, which is kept whatever happens.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    list: Vec<Candidate>,
}

/// An address at which a peer may be reachable.
#[derive(Debug)]
struct Candidate {
    addr: SocketAddr,
    is_in_netmap: bool,
    /// When the peer was last heard there, or named it in a call.
    learnt_at: Option<Instant>,
    /// Whether it is to be pinged.
    is_wanted: bool,
}

impl Candidates {
    /// Takes over the endpoints of a netmap. Says whether `best` was among them before and is not any more.
    ///
    /// What the netmap has ceased to name stays if it is known from elsewhere.
    pub(crate) fn set_endpoints(
        &mut self,
        endpoints: &[SocketAddr],
        best: Option<SocketAddr>,
        wants_new: bool,
        now: Instant,
    ) -> bool {
        let was_named = self.is_endpoint(best);
        for candidate in &mut self.list {
            candidate.is_in_netmap = false;
        }
        let usable = endpoints.iter().copied().filter(|addr| is_usable(*addr));
        for addr in usable.take(NETMAP_ENDPOINTS_MAX) {
            self.entry(addr, wants_new).is_in_netmap = true;
        }
        self.prune(best, now);
        was_named && !self.is_endpoint(best)
    }

    /// Notes that the peer was heard at an address, or named it.
    pub(crate) fn learn(
        &mut self,
        addr: SocketAddr,
        best: Option<SocketAddr>,
        wants_new: bool,
        now: Instant,
    ) {
        if is_usable(addr) {
            self.entry(addr, wants_new).learnt_at = Some(now);
            self.bound_learnt(best);
        }
    }

    /// Forgets what was learnt too long ago.
    pub(crate) fn prune(&mut self, best: Option<SocketAddr>, now: Instant) {
        self.list.retain(|candidate| {
            let is_young = |at| now.saturating_duration_since(at) < LEARNT_FOR;
            candidate.is_in_netmap
                || candidate.learnt_at.is_some_and(is_young)
                || best == Some(candidate.addr)
        });
        self.bound_learnt(best);
    }

    pub(crate) fn contains(&self, addr: SocketAddr) -> bool {
        self.list.iter().any(|candidate| candidate.addr == addr)
    }

    /// Has all addresses pinged.
    pub(crate) fn want_all(&mut self) {
        for candidate in &mut self.list {
            candidate.is_wanted = true;
        }
    }

    /// Has an address pinged, if it is known.
    pub(crate) fn want(&mut self, addr: SocketAddr) {
        if let Some(candidate) = self.list.iter_mut().find(|candidate| candidate.addr == addr) {
            candidate.is_wanted = true;
        }
    }

    /// Whether any address is to be pinged.
    pub(crate) fn is_any_wanted(&self) -> bool {
        self.list.iter().any(|candidate| candidate.is_wanted)
    }

    /// Hands out an address that is to be pinged: `best` first, for pings may run short.
    pub(crate) fn take_wanted(&mut self, best: Option<SocketAddr>) -> Option<SocketAddr> {
        let wanted = self.list.iter_mut().filter(|candidate| candidate.is_wanted);
        let first = wanted.min_by_key(|candidate| best != Some(candidate.addr))?;
        first.is_wanted = false;
        Some(first.addr)
    }

    fn is_endpoint(&self, addr: Option<SocketAddr>) -> bool {
        self.list.iter().any(|candidate| candidate.is_in_netmap && addr == Some(candidate.addr))
    }

    fn entry(&mut self, addr: SocketAddr, wants_new: bool) -> &mut Candidate {
        let known = self.list.iter().position(|candidate| candidate.addr == addr);
        let index = known.unwrap_or(self.list.len());
        if known.is_none() {
            self.list.push(Candidate {
                addr,
                is_in_netmap: false,
                learnt_at: None,
                is_wanted: wants_new,
            });
        }
        &mut self.list[index]
    }

    /// Forgets those that were learnt longest ago, until there are at most [`LEARNT_MAX`]. Of one call the
    /// first stay, for nodes name what STUN told them before what only neighbours can reach.
    fn bound_learnt(&mut self, best: Option<SocketAddr>) {
        while self.list.iter().filter(|candidate| !candidate.is_in_netmap).count() > LEARNT_MAX {
            let may_go =
                |candidate: &Candidate| !candidate.is_in_netmap && best != Some(candidate.addr);
            let latest_first = self.list.iter().enumerate().rev();
            let others = latest_first.filter(|(_, candidate)| may_go(candidate));
            let oldest = others.min_by_key(|(_, candidate)| candidate.learnt_at);
            let (index, _) = oldest.expect("invariant: of more than one, one is not the best");
            self.list.remove(index);
        }
    }
}

/// Whether a datagram to an address can reach one node, and none by accident.
///
/// A link-local IPv6 address says nothing without the interface, which no peer can know.
fn is_usable(addr: SocketAddr) -> bool {
    let is_unicast = match addr.ip() {
        IpAddr::V4(ip) => !ip.is_broadcast(),
        IpAddr::V6(ip) => ip.to_ipv4_mapped().is_none(),
    };
    let lacks_scope = match addr {
        SocketAddr::V4(_) => false,
        SocketAddr::V6(addr) => addr.ip().is_unicast_link_local() && addr.scope_id() == 0,
    };
    let ip = addr.ip();
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && is_unicast && !lacks_scope
}

#[cfg(test)]
mod tests;
