//! Sets of nodes and addresses, and how they are called.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use ipnet::IpNet;
use mesh_model::NodeId;
use roaring::RoaringBitmap;

use super::{Change, Effect};
use crate::compiled::CompiledPolicy;
use crate::facts::NodeFacts;
use crate::policy::{RawJson, Selector, SelectorId};
use crate::ranges::{IpRange, IpRanges};
use crate::sources::SourceText;
use crate::view::FilterRule;

/// Where the addresses of nodes are; a source that names more than these lets others in, too.
static TAILNET: LazyLock<IpRanges> = LazyLock::new(|| {
    let prefix = |text: &str| text.parse::<IpNet>().expect("invariant: a literal prefix");
    ["100.64.0.0/10", "fd7a:115c:a1e0::/48"].into_iter().map(prefix).collect()
});

/// Turns the sources of filter rules into sets of numbers: ids of nodes, and from the top down numbers for texts of
/// addresses that are no node's.
#[derive(Debug)]
pub(super) struct Sets {
    /// Addresses of nodes, sorted.
    addresses: Vec<(IpAddr, u32)>,
    /// By number from the top.
    others: Vec<Arc<str>>,
    other_numbers: HashMap<Arc<str>, u32>,
    /// By where the text stands in memory. The text is kept, so that nothing else comes to stand there.
    known: HashMap<usize, (SourceText, Arc<RoaringBitmap>)>,
}

impl Sets {
    pub(super) fn of(compiled: &CompiledPolicy) -> Self {
        let addresses = |node: &NodeFacts| {
            let id = node.id.0;
            node.addresses().map(move |address| (address, id))
        };
        let mut addresses: Vec<(IpAddr, u32)> = compiled.nodes().flat_map(addresses).collect();
        addresses.sort_unstable();
        Self { addresses, others: Vec::new(), other_numbers: HashMap::new(), known: HashMap::new() }
    }

    /// The node that has an address.
    pub(super) fn node_at(&self, address: IpAddr) -> Option<u32> {
        let index = self.addresses.binary_search_by_key(&address, |(known, _)| *known).ok()?;
        Some(self.addresses[index].1)
    }

    /// Whom a rule lets in.
    pub(super) fn sources(&mut self, rule: &FilterRule) -> Arc<RoaringBitmap> {
        let place = rule.src_ips.as_ptr().addr();
        if let Some((_, known)) = self.known.get(&place) {
            return known.clone();
        }
        let mut sources = RoaringBitmap::new();
        for text in &*rule.src_ips {
            self.add(text, &mut sources);
        }
        let sources = Arc::new(sources);
        self.known.insert(place, (rule.src_ips.clone(), sources.clone()));
        sources
    }

    fn add(&mut self, text: &Arc<str>, sources: &mut RoaringBitmap) {
        let mut addresses = parse_addresses(text);
        for range in addresses.ranges() {
            let start = self.addresses.partition_point(|(known, _)| *known < range.first);
            let inside =
                self.addresses[start..].iter().take_while(|(known, _)| *known <= range.last);
            sources.extend(inside.map(|(_, node)| *node));
        }
        addresses.remove(&TAILNET);
        if !addresses.is_empty() {
            sources.insert(self.number_of(text));
        }
    }

    fn number_of(&mut self, text: &Arc<str>) -> u32 {
        if let Some(number) = self.other_numbers.get(text) {
            return *number;
        }
        let count = u32::try_from(self.others.len()).expect("invariant: texts are bounded");
        self.others.push(text.clone());
        self.other_numbers.insert(text.clone(), u32::MAX - count);
        u32::MAX - count
    }

    /// The text of a number from the top.
    fn other(&self, number: u32) -> Option<&str> {
        self.others.get((u32::MAX - number) as usize).map(|text| &**text)
    }
}

/// Addresses as a filter rule writes them: `*`, an address, a CIDR, or `first-last`.
pub(super) fn parse_addresses(text: &str) -> IpRanges {
    if text == "*" {
        return IpRanges::all();
    }
    if let Some((first, last)) = text.split_once('-')
        && let (Ok(first), Ok(last)) = (first.parse(), last.parse())
    {
        return IpRange { first, last }.prefixes().collect();
    }
    let prefix = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse::<IpNet>());
    prefix.map(IpRanges::from).unwrap_or_default()
}

/// A capability or attribute with its values.
pub(super) fn capability_text(name: &str, values: Option<&[RawJson]>) -> String {
    let values: Vec<&str> = values.into_iter().flatten().map(|value| &*value.0).collect();
    if values.is_empty() { name.to_owned() } else { format!("{name}={}", values.join(",")) }
}

/// Numbers of a set, by which equal sets are found.
type Members = Vec<u32>;

/// What lies behind a node, if not the node itself: a subnet, or the Internet.
pub(super) type Behind = Option<Arc<str>>;

/// What was gained and lost, gathered over nodes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Destination nodes by effect, source, what lies behind them, and what is gained or lost.
    destinations: BTreeMap<(Effect, Members, Behind, String), RoaringBitmap>,
}

impl Changes {
    /// Notes that sources gain or lose something towards a node. For what has no sources, all nothings are equal.
    pub(super) fn add_node(
        &mut self,
        effect: Effect,
        sources: &RoaringBitmap,
        node: NodeId,
        what: &str,
    ) {
        let key = (effect, sources.iter().collect(), None, what.to_owned());
        self.destinations.entry(key).or_default().insert(node.0);
    }

    /// Notes that sources gain or lose something towards what lies behind some nodes.
    pub(super) fn add(
        &mut self,
        effect: Effect,
        sources: &RoaringBitmap,
        nodes: &RoaringBitmap,
        behind: Behind,
        what: String,
    ) {
        if !sources.is_empty() {
            let key = (effect, sources.iter().collect(), behind, what);
            *self.destinations.entry(key).or_default() |= nodes;
        }
    }

    /// Changes with the same sources and destinations as one, the widest first.
    pub(super) fn named(self, names: &Names, sets: &Sets) -> Vec<Change> {
        let mut whats: BTreeMap<(Effect, Members, Behind, Members), Vec<String>> = BTreeMap::new();
        for ((effect, sources, behind, what), nodes) in self.destinations {
            let key = (effect, sources, behind, nodes.iter().collect());
            whats.entry(key).or_default().push(what);
        }
        let mut changes: Vec<(usize, Change)> = whats
            .into_iter()
            .map(|((effect, sources, behind, nodes), what)| {
                let destinations = names.name(&nodes, sets);
                let behind = behind
                    .map(|behind| vec![format!("{behind} by way of {}", destinations.join(", "))]);
                let change = Change {
                    effect,
                    sources: names.name(&sources, sets),
                    destinations: behind.unwrap_or(destinations),
                    what,
                };
                (sources.len().max(1) * nodes.len(), change)
            })
            .collect();
        changes.sort_by(|(one_width, one), (other_width, other)| {
            other_width.cmp(one_width).then_with(|| one.cmp(other))
        });
        changes.into_iter().map(|(_, change)| change).collect()
    }
}

/// How nodes are called.
#[derive(Debug)]
pub(super) struct Names {
    identities: Vec<Identity>,
    /// Identities of nodes.
    of_node: BTreeMap<u32, usize>,
    /// Names of what policies select.
    of_set: HashMap<Members, String>,
}

/// A user, or a set of tags.
#[derive(Debug)]
struct Identity {
    name: String,
    is_tagged: bool,
    /// How many nodes it has.
    nodes: usize,
}

/// Who is missing of all users, or of all tagged nodes, may be named if they are at most this many.
const EXCEPTIONS_MAX: usize = 2;

impl Names {
    pub(super) fn of(old: &CompiledPolicy, new: &CompiledPolicy) -> Self {
        let mut names =
            Self { identities: Vec::new(), of_node: BTreeMap::new(), of_set: HashMap::new() };
        let mut numbers: HashMap<String, usize> = HashMap::new();
        for node in old.nodes().filter(|node| new.node(node.id).is_some()) {
            let name = old.identity(node);
            let number = *numbers.entry(name.clone()).or_insert_with(|| {
                names.identities.push(Identity {
                    name,
                    is_tagged: node.user().is_none(),
                    nodes: 0,
                });
                names.identities.len() - 1
            });
            names.identities[number].nodes += 1;
            names.of_node.insert(node.id.0, number);
        }
        for compiled in [old, new] {
            for (id, selector) in (0..).map(SelectorId).zip(&compiled.policy().selectors) {
                if is_name_of_set(selector) {
                    let members = compiled.nodes_selected(id).iter().collect();
                    names.of_set.entry(members).or_insert_with(|| selector.to_string());
                }
            }
        }
        names
    }

    pub(super) fn node_count(&self) -> u64 {
        self.of_node.len() as u64
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.of_node.keys().copied().map(NodeId)
    }

    /// The names of a set: one name of all its nodes, or the names of those that they belong to, with how many of their
    /// nodes it has if not all. Addresses that are no node's follow.
    fn name(&self, members: &[u32], sets: &Sets) -> Vec<String> {
        let split = members.partition_point(|id| sets.other(*id).is_none());
        let (nodes, others) = members.split_at(split);
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for identity in nodes.iter().filter_map(|id| self.of_node.get(id)) {
            *counts.entry(*identity).or_default() += 1;
        }
        let mut names = match self.of_set.get(nodes) {
            _ if nodes.len() == self.of_node.len() && counts.len() > 1 => {
                vec!["everybody".to_owned()]
            }
            Some(name) if counts.len() > 1 => vec![name.clone()],
            Some(_) | None => {
                let mut names = self.part(&counts, false);
                names.extend(self.part(&counts, true));
                names
            }
        };
        names.extend(others.iter().filter_map(|id| sets.other(*id)).map(|text| match text {
            "*" => "anybody".to_owned(),
            text => text.to_owned(),
        }));
        names
    }

    /// The names of the users, or of the tagged nodes, of a set that has so many nodes of each.
    fn part(&self, counts: &BTreeMap<usize, usize>, is_tagged: bool) -> Vec<String> {
        let all: Vec<(usize, &Identity)> = self
            .identities
            .iter()
            .enumerate()
            .filter(|(_, identity)| identity.is_tagged == is_tagged)
            .collect();
        let has_all = |number: &usize| counts.get(number) == Some(&self.identities[*number].nodes);
        let missing: Vec<(usize, &Identity)> =
            all.iter().filter(|(number, _)| !has_all(number)).copied().collect();
        let is_nearly_all = missing.len() <= EXCEPTIONS_MAX
            && missing.iter().all(|(number, _)| !counts.contains_key(number));
        let listed =
            all.iter().filter_map(|(number, identity)| Some(identity.share(*counts.get(number)?)));
        let mut listed: Vec<String> = listed.collect();
        if !is_nearly_all || listed.len() <= 2 * missing.len() + 1 {
            listed.sort();
            return listed;
        }
        let whole = if is_tagged { Selector::Tagged } else { Selector::Member };
        let exceptions: Vec<&str> = missing.iter().map(|(_, identity)| &*identity.name).collect();
        vec![if exceptions.is_empty() {
            whole.to_string()
        } else {
            format!("{whole} but {}", exceptions.join(" and "))
        }]
    }
}

impl Identity {
    fn share(&self, count: usize) -> String {
        if count == self.nodes {
            self.name.clone()
        } else {
            format!("{} ({count} of {} nodes)", self.name, self.nodes)
        }
    }
}

/// Whether a selector is a better name than those of its members.
fn is_name_of_set(selector: &Selector) -> bool {
    matches!(
        selector,
        Selector::Group(_)
            | Selector::Tag(_)
            | Selector::UserDomain(_)
            | Selector::Member
            | Selector::Tagged
            | Selector::Admin
    )
}
