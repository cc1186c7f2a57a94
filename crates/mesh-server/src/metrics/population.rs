//! Who is in the tailnet, counted when somebody asks.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use mesh_model::{Node, Owner, PreauthKey, Timestamp};
use mesh_policy::{Policy, RelationSize, active_routes};
use mesh_state::Snapshot;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::Labels;
use crate::App;

/// A count is shown again until this many times the span has passed that it took, so that counting takes a hundredth of
/// a core however often somebody asks: a quarter of a million nodes are counted every few seconds.
const REST: u32 = 100;

/// How many versions of clients are told apart; the rarer ones are `other`.
const VERSIONS_MAX: usize = 20;

/// What is to come within these spans is counted.
const WINDOWS: [(&str, SignedDuration); 3] = [
    ("1d", SignedDuration::from_hours(24)),
    ("7d", SignedDuration::from_hours(7 * 24)),
    ("30d", SignedDuration::from_hours(30 * 24)),
];

/// Shows who is in the tailnet of `app`, and what waits in its queues.
pub(super) fn register(app: App, registry: &mut Registry) {
    registry.register_collector(Box::new(PopulationCollector { app, last: Mutex::new(None) }));
}

struct PopulationCollector {
    app: App,
    last: Mutex<Option<Counted>>,
}

impl fmt::Debug for PopulationCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PopulationCollector").finish_non_exhaustive()
    }
}

/// A count, and until when it is good.
#[derive(Clone)]
struct Counted {
    population: Arc<Population>,
    until: Instant,
}

type Gauges<const N: usize> = Family<Labels<N>, Gauge>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Version {
    version: String,
}

/// Everything that takes a look at each node or key.
struct Population {
    nodes: Gauges<3>,
    node_keys_expiring: Gauges<1>,
    routes: Gauges<1>,
    versions: Family<Version, Gauge>,
    keys: Gauges<2>,
    keys_expiring: Gauges<2>,
    users: u64,
    policy_size: RelationSize,
}

impl Collector for PopulationCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.app.store.snapshot();
        let population = self.population(&snapshot);
        let mut show = |name: &str, help: &str, metric: &dyn EncodeMetric| {
            metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
        };
        let mut gauge = |name, help, value: u64| show(name, help, &ConstGauge::new(value));
        gauge("users", "Users", population.users)?;
        gauge(
            "pending_registrations",
            "Logins that wait or were just decided",
            snapshot.logins.len() as u64,
        )?;
        gauge("store_epoch", "Number of the newest snapshot since the start", snapshot.epoch)?;
        gauge(
            "db_queue_depth",
            "Commands that wait for the writer",
            self.app.store.queue_depth() as u64,
        )?;
        let size = &population.policy_size;
        gauge(
            "policy_classes",
            "Sets of nodes that the policy cannot tell apart",
            size.classes as u64,
        )?;
        gauge(
            "policy_relation_bytes",
            "Memory that tells which class sees which",
            size.bytes as u64,
        )?;
        show("policy_rules", "Rules of the policy in force", &rules(snapshot.policy.policy()))?;
        show("connections", "Connections by how far they are", &self.connections())?;
        let turned_away = ConstCounter::new(self.app.slots.turned_away());
        show("connections_rejected", "Connections that found no place", &turned_away)?;
        show("nodes", "Nodes by state and owner", &population.nodes)?;
        show("node_keys_expiring", "Node keys that run out soon", &population.node_keys_expiring)?;
        show("routes", "Routes that nodes offer or may carry", &population.routes)?;
        show("node_client_versions", "Nodes by version of their client", &population.versions)?;
        show("keys", "Preauth and API keys", &population.keys)?;
        show("keys_expiring", "Preauth and API keys that run out soon", &population.keys_expiring)
    }
}

impl PopulationCollector {
    /// The newest count, or the last if it is good enough.
    fn population(&self, snapshot: &Snapshot) -> Arc<Population> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let since = Instant::now();
        if let Some(counted) = last.as_ref().filter(|counted| since < counted.until) {
            return counted.population.clone();
        }
        let population = Arc::new(Population::count(snapshot, self.app.clock.now()));
        let rest: Duration = since.elapsed() * REST;
        *last = Some(Counted { population: population.clone(), until: since + rest });
        population
    }

    fn connections(&self) -> Gauges<1> {
        let gauges = Gauges::default();
        put(&gauges, [("stage", "unclaimed")], self.app.slots.taken());
        put(&gauges, [("stage", "upgraded")], self.app.channels.len());
        gauges
    }
}

/// A number of things as a gauge's value.
fn value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn put<const N: usize>(gauges: &Gauges<N>, labels: Labels<N>, count: usize) {
    gauges.get_or_create(&labels).set(value(count));
}

impl Population {
    fn count(snapshot: &Snapshot, now: Timestamp) -> Self {
        let this = Self {
            nodes: Family::default(),
            node_keys_expiring: Family::default(),
            routes: Family::default(),
            versions: Family::default(),
            keys: Family::default(),
            keys_expiring: Family::default(),
            users: snapshot.tailnet.users().count() as u64,
            policy_size: snapshot.policy.relation_size(),
        };
        this.count_nodes(snapshot, now);
        this.count_keys(snapshot, now);
        this
    }

    fn count_nodes(&self, snapshot: &Snapshot, now: Timestamp) {
        let mut nodes: HashMap<Labels<3>, usize> = all_kinds().map(|kind| (kind, 0)).collect();
        let mut versions: HashMap<Option<(u16, u16)>, usize> = HashMap::new();
        let mut expiring = [0; WINDOWS.len()];
        let [mut active, mut pending, mut absent] = [0; 3];
        for node in snapshot.tailnet.nodes() {
            *nodes.entry(kind(node, now)).or_default() += 1;
            *versions.entry(version(&node.hostinfo.ipn_version)).or_default() += 1;
            note(&mut expiring, node.expires_at, now);
            let (offered, approved) = (&node.hostinfo.routable_ips, &node.approved_routes);
            if !offered.is_empty() || !approved.is_empty() {
                let carried = active_routes(offered, approved).len();
                active += carried;
                pending += offered.len().saturating_sub(carried);
                absent += approved.len().saturating_sub(carried);
            }
        }
        for (labels, count) in nodes {
            put(&self.nodes, labels, count);
        }
        for ((window, _), count) in WINDOWS.iter().zip(expiring) {
            put(&self.node_keys_expiring, [("window", window)], count);
        }
        for (state, count) in [("active", active), ("pending", pending), ("absent", absent)] {
            put(&self.routes, [("state", state)], count);
        }
        self.put_versions(versions);
    }

    fn put_versions(&self, versions: HashMap<Option<(u16, u16)>, usize>) {
        let mut known: Vec<((u16, u16), usize)> = Vec::new();
        let mut other = 0;
        for (version, count) in versions {
            match version {
                Some(version) => known.push((version, count)),
                None => other += count,
            }
        }
        known.sort_by_key(|(version, count)| (std::cmp::Reverse(*count), *version));
        other += known.iter().skip(VERSIONS_MAX).map(|(_, count)| count).sum::<usize>();
        known.truncate(VERSIONS_MAX);
        let named =
            known.into_iter().map(|((major, minor), count)| (format!("{major}.{minor}"), count));
        for (version, count) in named.chain([("other".to_owned(), other)]) {
            self.versions.get_or_create(&Version { version }).set(value(count));
        }
    }

    fn count_keys(&self, snapshot: &Snapshot, now: Timestamp) {
        let mut preauth = [("valid", 0), ("used", 0), ("expired", 0), ("revoked", 0)];
        let mut expiring = [0; WINDOWS.len()];
        for key in snapshot.tailnet.preauth_keys() {
            let state = preauth_state(key, now);
            if let Some((_, count)) = preauth.iter_mut().find(|(name, _)| *name == state) {
                *count += 1;
            }
            if state == "valid" {
                note(&mut expiring, key.expires_at, now);
            }
        }
        self.put_keys("preauth", &preauth, expiring);
        let (mut valid, mut expired, mut expiring) = (0, 0, [0; WINDOWS.len()]);
        for key in snapshot.tailnet.api_keys() {
            *(if key.is_valid(now) { &mut valid } else { &mut expired }) += 1;
            note(&mut expiring, key.expires_at, now);
        }
        self.put_keys("api", &[("valid", valid), ("expired", expired)], expiring);
    }

    fn put_keys(
        &self,
        kind: &'static str,
        states: &[(&'static str, usize)],
        expiring: [usize; WINDOWS.len()],
    ) {
        for (state, count) in states {
            put(&self.keys, [("kind", kind), ("state", state)], *count);
        }
        for ((window, _), count) in WINDOWS.iter().zip(expiring) {
            put(&self.keys_expiring, [("kind", kind), ("window", window)], count);
        }
    }
}

fn rules(policy: &Policy) -> Gauges<1> {
    let gauges = Gauges::default();
    put(&gauges, [("section", "acls")], policy.acls.as_ref().map_or(0, Vec::len));
    put(&gauges, [("section", "grants")], policy.grants.as_ref().map_or(0, Vec::len));
    put(&gauges, [("section", "ssh")], policy.ssh.len());
    gauges
}

/// All labels that a node can have, so that a kind without a node is shown as zero.
fn all_kinds() -> impl Iterator<Item = Labels<3>> {
    let states = ["online", "offline", "expired"];
    let owners = ["user", "tagged"];
    states.into_iter().flat_map(move |state| {
        owners.into_iter().flat_map(move |owner| {
            ["false", "true"].map(|ephemeral| labels(state, owner, ephemeral))
        })
    })
}

fn kind(node: &Node, now: Timestamp) -> Labels<3> {
    let state = match node.session {
        _ if node.is_expired(now) => "expired",
        Some(_) => "online",
        None => "offline",
    };
    let owner = match node.owner {
        Owner::User(_) => "user",
        Owner::Tags(_) => "tagged",
    };
    labels(state, owner, if node.ephemeral { "true" } else { "false" })
}

fn labels(state: &'static str, owner: &'static str, ephemeral: &'static str) -> Labels<3> {
    [("state", state), ("owner", owner), ("ephemeral", ephemeral)]
}

/// Counts an expiry in each window that it falls into.
fn note(expiring: &mut [usize; WINDOWS.len()], at: Option<Timestamp>, now: Timestamp) {
    let Some(left) = at.map(|at| at.duration_since(now)).filter(SignedDuration::is_positive) else {
        return;
    };
    for (count, (_, window)) in expiring.iter_mut().zip(WINDOWS) {
        *count += usize::from(left <= window);
    }
}

fn preauth_state(key: &PreauthKey, now: Timestamp) -> &'static str {
    if key.revoked_at.is_some() {
        "revoked"
    } else if !key.reusable && key.used_at.is_some() {
        "used"
    } else if key.expires_at.is_some_and(|at| at <= now) {
        "expired"
    } else {
        "valid"
    }
}

/// `1.90` of `1.90.2-t0a1b2c3`. Clients write what they like: what does not begin with two numbers is none.
fn version(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests;
