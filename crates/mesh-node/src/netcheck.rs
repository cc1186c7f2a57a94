//! What the network around a node is like: how far the relays' regions are, and as which address the node is seen there.
//!
//! A machine: regions to ask go in, answers come in, a [`Report`](crate::control::Report) of both comes out. Sending is the
//! engine's, names are resolved by [`targets`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mesh_derp::stun::TransactionId;
use mesh_wire::{DerpMap, DerpNode, DerpRegionId};
use tokio::net::lookup_host;

/// How long an answer may take; regions that are farther are not told from those that do not answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// How long the first choice of a home waits for answers, should one region be nearer than the first that answers.
const SETTLE: Duration = Duration::from_millis(300);

/// Another region must be nearer than the home by this factor to become the home: who moves must be found anew.
///
/// Source: tailscale `net/netcheck/netcheck.go`, `addReportHistoryAndSetPreferredDERP`.
const NEARER_BY: f64 = 2.0 / 3.0;

/// How old an address that a region has told may be before it is asked for again.
///
/// Source: tailscale `wgengine/magicsock`, `endpointsFreshEnoughDuration`.
const FRESH: Duration = Duration::from_secs(27);

/// The port of STUN where a map names none.
const STUN_PORT: u16 = 3478;

/// Round trips and addresses of one node.
#[derive(Debug, Default)]
pub(crate) struct Netcheck {
    asked: BTreeMap<TransactionId, Asked>,
    latencies: BTreeMap<(DerpRegionId, bool), Duration>,
    /// As which address the node is seen, by IPv6 or not.
    seen_as: BTreeMap<bool, SocketAddr>,
    asked_at: Option<Instant>,
    home: Option<DerpRegionId>,
}

#[derive(Debug)]
struct Asked {
    region: DerpRegionId,
    server: SocketAddr,
    at: Instant,
}

impl Netcheck {
    /// Notes that a server is asked.
    pub(crate) fn note_asked(
        &mut self,
        transaction: TransactionId,
        region: DerpRegionId,
        server: SocketAddr,
        now: Instant,
    ) {
        self.asked.retain(|_, asked| now.saturating_duration_since(asked.at) <= ANSWER_MAX);
        self.asked.insert(transaction, Asked { region, server, at: now });
        self.asked_at = Some(now);
    }

    /// Takes an answer. Says whether it tells something new.
    pub(crate) fn handle_answer(
        &mut self,
        transaction: &TransactionId,
        seen_as: SocketAddr,
        from: SocketAddr,
        now: Instant,
    ) -> bool {
        let Some(asked) = self.asked.remove(transaction) else { return false };
        let is_v6 = asked.server.is_ipv6();
        if asked.server != from || seen_as.is_ipv6() != is_v6 || seen_as.port() == 0 {
            return false;
        }
        let latency = now.saturating_duration_since(asked.at);
        let is_first = self.latencies.insert((asked.region, is_v6), latency).is_none();
        self.seen_as.insert(is_v6, seen_as) != Some(seen_as) || is_first
    }

    /// Whether the addresses are so old that the servers should be asked again.
    pub(crate) fn is_stale(&self, now: Instant) -> bool {
        self.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= FRESH)
    }

    /// The home region among those of a map: the nearest, or the first until one has answered. It stays until another
    /// is clearly nearer.
    pub(crate) fn choose_home(&mut self, map: &DerpMap, now: Instant) -> Option<DerpRegionId> {
        let may_be_home = |id: &DerpRegionId| {
            let region = map.regions.as_ref().and_then(|regions| regions.get(id));
            region.is_some_and(|region| {
                !region.no_measure_no_home && region.nodes.iter().any(|node| !node.stun_only)
            })
        };
        let current = self.home.filter(|home| may_be_home(home));
        let nearest = self.latencies.iter().filter(|((id, _), _)| may_be_home(id));
        let nearest = nearest.min_by_key(|(_, latency)| **latency).map(|((id, _), _)| *id);
        self.home = match (current, nearest) {
            (Some(home), Some(nearest)) if self.is_nearer(nearest, home) => Some(nearest),
            (Some(home), _) => Some(home),
            (None, Some(nearest)) => Some(nearest),
            (None, None) if self.is_settled(now) => {
                map.regions.iter().flatten().map(|(id, _)| *id).find(may_be_home)
            }
            (None, None) => None,
        };
        self.home
    }

    /// When a home is chosen though no region has answered.
    pub(crate) fn settles_at(&self) -> Option<Instant> {
        self.home.is_none().then_some(self.asked_at? + SETTLE)
    }

    /// As which addresses the node is seen.
    pub(crate) fn seen_as(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.seen_as.values().copied()
    }

    /// Round trips in seconds, as the control server is told them.
    pub(crate) fn latencies(&self) -> BTreeMap<String, f64> {
        let family = |is_v6| if is_v6 { "v6" } else { "v4" };
        let latencies = self.latencies.iter();
        latencies
            .map(|((id, is_v6), latency)| {
                (format!("{id}-{}", family(*is_v6)), latency.as_secs_f64())
            })
            .collect()
    }

    fn is_settled(&self, now: Instant) -> bool {
        self.asked_at.is_some_and(|at| now >= at + SETTLE)
    }

    fn is_nearer(&self, region: DerpRegionId, home: DerpRegionId) -> bool {
        match (self.latency(region), self.latency(home)) {
            (Some(region), Some(home)) => region.as_secs_f64() < home.as_secs_f64() * NEARER_BY,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    fn latency(&self, region: DerpRegionId) -> Option<Duration> {
        [false, true].into_iter().filter_map(|v6| self.latencies.get(&(region, v6))).min().copied()
    }
}

/// The STUN servers of a map: of each region the first node that has one.
pub(crate) async fn targets(map: &DerpMap) -> Vec<(DerpRegionId, SocketAddr)> {
    let mut targets = Vec::new();
    for (id, region) in map.regions.iter().flatten() {
        let Some(node) = region.nodes.iter().find(|node| node.stun_port != -1) else { continue };
        targets.extend(addresses(node).await.into_iter().map(|address| (*id, address)));
    }
    targets
}

/// Where a node answers STUN: at most one address of each family.
async fn addresses(node: &DerpNode) -> Vec<SocketAddr> {
    let port = u16::try_from(node.stun_port).ok().filter(|port| *port != 0).unwrap_or(STUN_PORT);
    let named: Vec<IpAddr> = if node.stun_test_ip.is_empty() {
        [&node.ipv4, &node.ipv6].into_iter().filter_map(|text| text.parse().ok()).collect()
    } else {
        node.stun_test_ip.parse().into_iter().collect()
    };
    let found: Vec<IpAddr> = if named.is_empty() {
        let looked_up = lookup_host((node.host_name.as_str(), port)).await;
        looked_up.into_iter().flatten().map(|address| address.ip()).collect()
    } else {
        named
    };
    let is_used = |v6: bool| if v6 { node.ipv6 != "none" } else { node.ipv4 != "none" };
    let first = |v6: bool| found.iter().find(|ip| ip.is_ipv6() == v6 && is_used(v6));
    [first(false), first(true)].into_iter().flatten().map(|ip| SocketAddr::new(*ip, port)).collect()
}

#[cfg(test)]
mod tests;
