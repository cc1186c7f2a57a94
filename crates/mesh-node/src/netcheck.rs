//! What the network around a node is like: how far the relays' regions are, and as which address the node is seen there.
//!
//! A machine: rounds of questions and their answers go in, latencies, addresses and a home come out. Sending is the engine's,
//! and finding the servers that of `stun_servers`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh_derp::stun::TransactionId;
use mesh_wire::{DerpMap, DerpRegionId};

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

/// Round trips and addresses of one node.
#[derive(Debug, Default)]
pub(crate) struct Netcheck {
    asked: BTreeMap<TransactionId, Asked>,
    latencies: BTreeMap<(DerpRegionId, bool), Duration>,
    /// As which address the node is seen, by IPv6 or not.
    seen_as: BTreeMap<bool, SocketAddr>,
    /// When the last round of questions began.
    asked_at: Option<Instant>,
    /// When the first round has had its time; `None` before it, and once that has been acted on.
    settles_at: Option<Instant>,
    is_settled: bool,
    home: Option<DerpRegionId>,
    /// What the control server multiplies the latencies of regions with.
    scores: BTreeMap<DerpRegionId, f64>,
}

#[derive(Debug)]
struct Asked {
    region: DerpRegionId,
    server: SocketAddr,
    at: Instant,
}

impl Netcheck {
    /// Notes that servers are about to be asked, which may turn out to be none.
    pub(crate) fn begin_round(&mut self, now: Instant) {
        self.asked.retain(|_, asked| now.saturating_duration_since(asked.at) <= ANSWER_MAX);
        self.asked_at = Some(now);
        if !self.is_settled {
            self.settles_at.get_or_insert(now + SETTLE);
        }
    }

    /// Notes that a server is asked.
    pub(crate) fn note_asked(
        &mut self,
        transaction: TransactionId,
        region: DerpRegionId,
        server: SocketAddr,
        now: Instant,
    ) {
        self.asked.insert(transaction, Asked { region, server, at: now });
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
        if self.settles_at.take_if(|at| now >= *at).is_some() {
            self.is_settled = true;
        }
        let current = self.home.filter(|home| may_be_home(home));
        self.note_scores(map);
        let nearest = self.latencies.keys().map(|(id, _)| *id).filter(may_be_home);
        let nearest = nearest
            .filter_map(|id| Some((id, self.scored(id)?)))
            .min_by(|(_, one), (_, other)| one.total_cmp(other))
            .map(|(id, _)| id);
        self.home = match (current, nearest) {
            (Some(home), Some(nearest)) if self.is_nearer(nearest, home) => Some(nearest),
            (Some(home), _) => Some(home),
            (None, Some(nearest)) => Some(nearest),
            (None, None) if self.is_settled => {
                map.regions.iter().flatten().map(|(id, _)| *id).find(may_be_home)
            }
            (None, None) => None,
        };
        self.home
    }

    /// When [`Self::choose_home`] is to be asked, for then a home is chosen even if no region has answered.
    pub(crate) fn settles_at(&self) -> Option<Instant> {
        self.settles_at
    }

    /// As which addresses the node is seen.
    pub(crate) fn seen_as(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.seen_as.values().copied()
    }

    /// The round trips to the regions that have answered, by the family that was quicker.
    pub(crate) fn nearest(&self) -> BTreeMap<DerpRegionId, Duration> {
        let regions = self.latencies.keys().map(|(id, _)| *id);
        regions.filter_map(|id| Some((id, self.latency(id)?))).collect()
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

    fn is_nearer(&self, region: DerpRegionId, home: DerpRegionId) -> bool {
        match (self.scored(region), self.scored(home)) {
            (Some(region), Some(home)) => region < home * NEARER_BY,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }

    /// Takes over what regions count for. A map that says nothing of it leaves it as it is.
    fn note_scores(&mut self, map: &DerpMap) {
        let params = map.home_params.as_ref();
        if let Some(scores) = params.and_then(|params| params.region_score.as_ref()) {
            self.scores.clone_from(scores);
        }
    }

    /// The round trip to a region in seconds, times what the control server gives it: below one it is preferred.
    ///
    /// Source: tailscale `tailcfg/derpmap.go`, `DERPHomeParams`.
    fn scored(&self, region: DerpRegionId) -> Option<f64> {
        let score = self.scores.get(&region).copied().filter(|score| *score > 0.0);
        Some(self.latency(region)?.as_secs_f64() * score.unwrap_or(1.0))
    }

    fn latency(&self, region: DerpRegionId) -> Option<Duration> {
        [false, true].into_iter().filter_map(|v6| self.latencies.get(&(region, v6))).min().copied()
    }
}

#[cfg(test)]
mod tests;
