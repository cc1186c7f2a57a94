//! What a packet filter lets in that another does not.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::NodeId;
use roaring::RoaringBitmap;

use super::Effect;
use super::sets::{Behind, Changes, Sets, capability_text, parse_addresses};
use crate::compiled::CompiledPolicy;
use crate::facts::NodeFacts;
use crate::policy::PortRange;
use crate::program::INTERNET;
use crate::ranges::IpRanges;
use crate::rules::{DEFAULT_PROTOCOLS, opens, ports_text};
use crate::view::FilterRule;

/// Compares filters of two policies.
#[derive(Debug)]
pub(super) struct FilterDiff<'a> {
    old: &'a CompiledPolicy,
    new: &'a CompiledPolicy,
    /// Destinations by text.
    known: HashMap<Arc<str>, Arc<IpRanges>>,
}

/// Something that a filter lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Whether it is the new filter.
    is_new: bool,
    /// The whole destination as written.
    addresses: Arc<IpRanges>,
    proto: Option<u8>,
    ports: PortRange,
    sources: Arc<RoaringBitmap>,
}

/// Where a packet ends up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Node,
    Subnet(IpNet),
    Internet,
}

/// A piece of what changes: ports, and who gains and loses them.
#[derive(Debug, Clone, PartialEq)]
struct Piece {
    ports: PortRange,
    gained: RoaringBitmap,
    lost: RoaringBitmap,
}

impl<'a> FilterDiff<'a> {
    pub(super) fn new(old: &'a CompiledPolicy, new: &'a CompiledPolicy) -> Self {
        Self { old, new, known: HashMap::new() }
    }

    /// Compares the filters of a node, which stands for others like it. Whether they differ.
    pub(super) fn compare(
        &mut self,
        node: NodeId,
        nodes: &RoaringBitmap,
        sets: &mut Sets,
        changes: &mut Changes,
    ) -> bool {
        let (before, after) = (self.old.packet_filter(node), self.new.packet_filter(node));
        let Some(facts) = self.new.node(node).filter(|_| before != after) else { return false };
        let mut entries = self.entries(&before, false, sets);
        entries.extend(self.entries(&after, true, sets));
        for target in targets(facts, &entries) {
            let hitting: Vec<&Entry> =
                entries.iter().filter(|entry| target.is_hit_by(facts, &entry.addresses)).collect();
            for (proto, pieces) in pieces_by_protocol(&hitting) {
                for effect in [Effect::Gained, Effect::Lost] {
                    for (ports, sources) in summarize(&hitting, proto, &pieces, effect) {
                        changes.add(effect, &sources, nodes, target.behind(), ports);
                    }
                }
            }
        }
        compare_capabilities(facts, nodes, [&before, &after], sets, changes);
        true
    }

    fn entries(&mut self, filter: &[FilterRule], is_new: bool, sets: &mut Sets) -> Vec<Entry> {
        let mut entries = Vec::new();
        for rule in filter.iter().filter(|rule| !rule.dst_ports.is_empty()) {
            let sources = sets.sources(rule);
            for destination in &rule.dst_ports {
                let known = self.known.entry(destination.ip.clone());
                let addresses = known.or_insert_with(|| parse_addresses(&destination.ip).into());
                entries.push(Entry {
                    is_new,
                    addresses: addresses.clone(),
                    proto: rule.ip_proto,
                    ports: destination.ports,
                    sources: sources.clone(),
                });
            }
        }
        entries
    }
}

/// Everything that the destinations of entries mean on a node.
fn targets(node: &NodeFacts, entries: &[Entry]) -> BTreeSet<Target> {
    let mut targets: BTreeSet<Target> = [Target::Node].into();
    if node.is_exit_node() {
        targets.insert(Target::Internet);
    }
    for route in node.subnet_routes() {
        for entry in entries.iter().filter(|entry| entry.addresses.overlaps(&route)) {
            if entry.addresses.covers(&route.into()) {
                targets.insert(Target::Subnet(route));
            } else {
                let inside = entry.addresses.prefixes().filter(|prefix| route.contains(prefix));
                targets.extend(inside.map(Target::Subnet));
            }
        }
    }
    targets
}

impl Target {
    fn is_hit_by(&self, node: &NodeFacts, addresses: &IpRanges) -> bool {
        match self {
            Self::Node => node.addresses().any(|address| addresses.contains(address)),
            Self::Subnet(prefix) => addresses.covers(&(*prefix).into()),
            // The Internet comes as seven ranges, which stand or fall together.
            Self::Internet => INTERNET.covers(addresses) || addresses.covers(&INTERNET),
        }
    }

    fn behind(&self) -> Behind {
        match self {
            Self::Node => None,
            Self::Subnet(prefix) => Some(prefix.to_string().into()),
            Self::Internet => Some("the Internet".into()),
        }
    }
}

/// From how many pieces on a change is told by the destinations of rules instead of port by port.
const PIECES_MAX: usize = 8;

/// Who gains or loses which ports. Where many rules cut the ports into many pieces, those of each destination are told as
/// written, even if some of them were open to some before, or are afterwards: `in part`.
fn summarize(
    entries: &[&Entry],
    proto: Option<u8>,
    pieces: &[Piece],
    effect: Effect,
) -> Vec<(String, RoaringBitmap)> {
    let pieces: Vec<(PortRange, &RoaringBitmap)> = pieces
        .iter()
        .map(|piece| (piece.ports, piece.changed(effect)))
        .filter(|(_, changed)| !changed.is_empty())
        .collect();
    if pieces.len() <= PIECES_MAX {
        let exact = |(ports, changed): &(PortRange, &RoaringBitmap)| {
            (ports_text(proto, *ports), RoaringBitmap::clone(changed))
        };
        return pieces.iter().map(exact).collect();
    }
    let mut told: BTreeMap<(PortRange, bool), RoaringBitmap> = BTreeMap::new();
    let is_opened =
        |entry: &&&Entry| entry.is_new == (effect == Effect::Gained) && opens(entry.proto, proto);
    for entry in entries.iter().filter(is_opened) {
        let PortRange { first, last } = entry.ports;
        let from = pieces.partition_point(|(ports, _)| ports.last < first);
        let within = pieces[from..].iter().take_while(|(ports, _)| ports.first <= last);
        let within: Vec<&(PortRange, &RoaringBitmap)> = within.collect();
        let changed = within.iter().fold(RoaringBitmap::new(), |all, (_, some)| all | *some);
        let changed = changed & &*entry.sources;
        let is_whole = within.iter().any(|(ports, some)| {
            ports.first <= first && last <= ports.last && changed.is_subset(some)
        });
        *told.entry((entry.ports, !is_whole)).or_default() |= changed;
    }
    let text = |((ports, is_part), changed): ((PortRange, bool), RoaringBitmap)| {
        let part = if is_part { " in part" } else { "" };
        (format!("{}{part}", ports_text(proto, ports)), changed)
    };
    told.into_iter().map(text).collect()
}

/// What changes for each protocol; what is the same for all of the default set is told once.
fn pieces_by_protocol(entries: &[&Entry]) -> Vec<(Option<u8>, Vec<Piece>)> {
    let named: BTreeSet<u8> = entries.iter().filter_map(|entry| entry.proto).collect();
    let pieces = |proto| {
        let open: Vec<&Entry> =
            entries.iter().copied().filter(|entry| opens(entry.proto, Some(proto))).collect();
        pieces(&open)
    };
    let mut found: Vec<(Option<u8>, Vec<Piece>)> = Vec::new();
    if DEFAULT_PROTOCOLS.iter().any(|proto| named.contains(proto)) {
        let defaults = DEFAULT_PROTOCOLS.map(|proto| (Some(proto), pieces(proto)));
        let [(_, first), others @ ..] = &defaults;
        if others.iter().all(|(_, other)| other == first) {
            found.push((None, first.clone()));
        } else {
            found.extend(defaults);
        }
    } else {
        found.push((None, pieces(DEFAULT_PROTOCOLS[0])));
    }
    let further = named.iter().filter(|proto| !DEFAULT_PROTOCOLS.contains(proto));
    found.extend(further.map(|proto| (Some(*proto), pieces(*proto))));
    found
}

/// What changes, port by port from the lowest; neighbours that change alike are one piece.
fn pieces(entries: &[&Entry]) -> Vec<Piece> {
    let mut bounds: Vec<(u32, bool, usize)> = Vec::with_capacity(entries.len() * 2);
    for (index, entry) in entries.iter().enumerate() {
        bounds.push((entry.ports.first.into(), true, index));
        bounds.push((u32::from(entry.ports.last) + 1, false, index));
    }
    bounds.sort_unstable();
    let mut pieces: Vec<Piece> = Vec::new();
    let mut open: BTreeSet<usize> = BTreeSet::new();
    let mut rest = &bounds[..];
    while let Some((port, _, _)) = rest.first().copied() {
        let count = rest.iter().take_while(|(other, _, _)| *other == port).count();
        for (_, is_start, index) in &rest[..count] {
            if *is_start {
                open.insert(*index)
            } else {
                open.remove(index)
            };
        }
        rest = &rest[count..];
        let Some((end, _, _)) = rest.first() else { break };
        let (before, after) = (union(entries, &open, false), union(entries, &open, true));
        let port_at = |port: u32| u16::try_from(port).expect("invariant: within a port range");
        let piece = Piece {
            ports: PortRange { first: port_at(port), last: port_at(end - 1) },
            gained: &after - &before,
            lost: before - after,
        };
        match pieces.last_mut() {
            Some(last) if last.continues_as(&piece) => last.ports.last = piece.ports.last,
            _ => pieces.push(piece),
        }
    }
    pieces.retain(|piece| !piece.gained.is_empty() || !piece.lost.is_empty());
    pieces
}

impl Piece {
    fn changed(&self, effect: Effect) -> &RoaringBitmap {
        match effect {
            Effect::Gained => &self.gained,
            Effect::Lost => &self.lost,
        }
    }

    fn continues_as(&self, next: &Self) -> bool {
        u32::from(self.ports.last) + 1 == u32::from(next.ports.first)
            && self.gained == next.gained
            && self.lost == next.lost
    }
}

fn union(entries: &[&Entry], open: &BTreeSet<usize>, is_new: bool) -> RoaringBitmap {
    let open = open.iter().map(|index| entries[*index]).filter(|entry| entry.is_new == is_new);
    open.fold(RoaringBitmap::new(), |all, entry| all | &*entry.sources)
}

/// Capabilities towards the node itself, before and after.
fn compare_capabilities(
    node: &NodeFacts,
    nodes: &RoaringBitmap,
    sides: [&[FilterRule]; 2],
    sets: &mut Sets,
    changes: &mut Changes,
) {
    let [before, after] = sides.map(|filter| capabilities(node, filter, sets));
    let nobody = RoaringBitmap::new();
    for (effect, these, others) in
        [(Effect::Gained, &after, &before), (Effect::Lost, &before, &after)]
    {
        for (text, sources) in these {
            let only_these = sources - others.get(text).unwrap_or(&nobody);
            changes.add(effect, &only_these, nodes, None, text.clone());
        }
    }
}

fn capabilities(
    node: &NodeFacts,
    filter: &[FilterRule],
    sets: &mut Sets,
) -> HashMap<String, RoaringBitmap> {
    let mut capabilities: HashMap<String, RoaringBitmap> = HashMap::new();
    for rule in filter {
        let is_own = |prefix: &IpNet| node.addresses().any(|address| prefix.contains(&address));
        let grants = rule.cap_grant.iter().filter(|grant| grant.dsts.iter().any(is_own));
        for (name, values) in grants.flat_map(|grant| grant.cap_map.iter()) {
            let text = capability_text(name, values.as_deref());
            *capabilities.entry(text).or_default() |= &*sets.sources(rule);
        }
    }
    capabilities
}
