//! Packet filters: what a node lets in.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::NodeId;

use crate::compiled::{Class, CompiledPolicy, Firsts};
use crate::facts::NodeFacts;
use crate::policy::{PortRange, Selector};
use crate::program::{Atom, Effect, INTERNET, Item, Kind, Scope, WILDCARD};
use crate::ranges::{IpRange, IpRanges};
use crate::sources::{SourceKeyId, SourceText};
use crate::view::{CapGrant, FilterRule, NetPortRange};

/// A destination of an item that may hit the nodes of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate {
    item: u32,
    /// Number of the destination.
    place: u32,
}

/// A node, and what a packet filter asks of it.
#[derive(Debug)]
struct Receiver<'a> {
    facts: &'a NodeFacts,
    class: &'a Class,
    subnets: Vec<IpNet>,
    is_exit_node: bool,
}

/// What a node lets in, by the name of the part.
pub type FilterChunks = BTreeMap<String, Vec<FilterRule>>;

impl CompiledPolicy {
    /// What a node lets in: the tailnet's rules in order, merged where sources and protocol are the same, reduced to
    /// what can reach the node.
    pub fn packet_filter(&self, node: NodeId) -> Vec<FilterRule> {
        let Some(receiver) = self.receiver(node) else { return Vec::new() };
        let firsts = self.firsts.get_or_init(|| self.find_firsts());
        let mut rules: BTreeMap<u32, FilterRule> = BTreeMap::new();
        let mut own_firsts = Firsts::default();
        for (number, rule) in self.rules_of(&receiver, |_| true) {
            let place = if rule.cap_grant.is_empty() {
                let key = (rule.src_ips.clone(), rule.ip_proto);
                let own = *own_firsts.entry(key.clone()).or_insert(number);
                firsts.get(&key).map_or(own, |first| own.min(*first))
            } else {
                number
            };
            match rules.get_mut(&place) {
                Some(merged) => merged.dst_ports.extend(rule.dst_ports),
                None => {
                    rules.insert(place, rule);
                }
            }
        }
        rules.into_values().collect()
    }

    /// What a node lets in, as parts that change on their own: rules of the same sources stand together under a name
    /// that is the same in every snapshot and policy.
    pub fn filter_chunks(&self, node: NodeId) -> FilterChunks {
        self.receiver(node).map(|receiver| self.chunks_of(&receiver, |_| true)).unwrap_or_default()
    }

    /// Those parts of what a node lets in that are different in a later state; `None` for one that is gone.
    ///
    /// Of a node without subnet routes that is in the class that it was in only the rules are looked at whose sources have other addresses.
    pub fn filter_delta(
        &self,
        later: &Self,
        node: NodeId,
    ) -> BTreeMap<String, Option<Vec<FilterRule>>> {
        let (from, to) = (self.receiver(node), later.receiver(node));
        let stays = from.as_ref().zip(to.as_ref()).is_some_and(|(from, to)| {
            Arc::ptr_eq(&self.program, &later.program)
                && from.class.id == to.class.id
                && from.facts.ipv4 == to.facts.ipv4
                && from.facts.ipv6 == to.facts.ipv6
                // What reaches the addresses behind a router is a matter of the nodes that have them.
                && from.subnets.is_empty()
        });
        let is_asked = |item: &Item| !stays || self.has_other_sources(later, item);
        let chunks = |state: &Self, receiver: Option<Receiver<'_>>| {
            receiver.map(|receiver| state.chunks_of(&receiver, is_asked)).unwrap_or_default()
        };
        let (old, mut new) = (chunks(self, from), chunks(later, to));
        let gone: Vec<_> = old.keys().filter(|name| !new.contains_key(*name)).cloned().collect();
        new.retain(|name, rules| old.get(name) != Some(rules));
        let told = new.into_iter().map(|(name, rules)| (name, Some(rules)));
        told.chain(gone.into_iter().map(|name| (name, None))).collect()
    }

    /// Whether a rule's sources may have other addresses in a later state of the same program. Rules that share a name
    /// are answered alike.
    fn has_other_sources(&self, later: &Self, item: &Item) -> bool {
        match item.scope {
            Scope::SelfNodes | Scope::Via(_) => true,
            Scope::Tailnet => {
                self.program.keys.get(item.sources).is_reversed
                    || self.stamp_of(item.sources) != later.stamp_of(item.sources)
            }
        }
    }

    fn chunks_of(&self, receiver: &Receiver<'_>, is_asked: impl Fn(&Item) -> bool) -> FilterChunks {
        let mut chunks = FilterChunks::new();
        for (number, rule) in self.rules_of(receiver, is_asked) {
            let chunk = chunks.entry(self.chunk_name(number)).or_default();
            let same = chunk.iter_mut().find(|known| {
                known.cap_grant.is_empty()
                    && rule.cap_grant.is_empty()
                    && known.ip_proto == rule.ip_proto
                    && known.src_ips == rule.src_ips
            });
            match same {
                Some(known) => known.dst_ports.extend(rule.dst_ports),
                None => chunk.push(rule),
            }
        }
        chunks
    }

    /// The item's sources by name, hashed: what stays when others change.
    fn chunk_name(&self, number: u32) -> String {
        let item = &self.program.items[number as usize];
        let kind = match item.scope {
            Scope::Tailnet => 't',
            Scope::SelfNodes => 's',
            Scope::Via(_) => 'v',
        };
        let hash = self.program.cache.name(item.sources, || self.hash_of(item.sources));
        format!("{kind}{hash:016x}")
    }

    fn hash_of(&self, key: SourceKeyId) -> u64 {
        let key = self.program.keys.get(key);
        let selector = |atom: Atom| self.policy().selectors.get(atom as usize);
        let mut names: Vec<_> = key
            .atoms
            .iter()
            .map(|atom| match self.program.postured_at(*atom) {
                Some(narrowed) => (selector(narrowed.source), Some(&narrowed.posture)),
                None => (selector(*atom), None),
            })
            .collect();
        names.sort_unstable();
        let mut hasher = DefaultHasher::new();
        (key.is_danger_all, key.is_everybody, key.is_reversed, names).hash(&mut hasher);
        hasher.finish()
    }

    fn receiver(&self, node: NodeId) -> Option<Receiver<'_>> {
        let (facts, class) = (self.node(node)?, self.class(node)?);
        let subnets = facts.subnet_routes().collect();
        Some(Receiver { facts, class, subnets, is_exit_node: facts.is_exit_node() })
    }

    /// Those of the tailnet's rules that are asked for, reduced to a node, with their numbers, not merged.
    fn rules_of(
        &self,
        receiver: &Receiver<'_>,
        is_asked: impl Fn(&Item) -> bool,
    ) -> Vec<(u32, FilterRule)> {
        let candidates = self.candidates(receiver.class);
        candidates
            .chunk_by(|one, other| one.item == other.item)
            .filter_map(|places| {
                let number = places[0].item;
                let item = &self.program.items[number as usize];
                Some((number, is_asked(item).then(|| self.rule(receiver, item, places))??))
            })
            .collect()
    }

    fn candidates<'a>(&self, class: &'a Class) -> &'a [Candidate] {
        class.candidates.get_or_init(|| self.find_candidates(class))
    }

    /// Everything that may hit the nodes of a class, in order.
    fn find_candidates(&self, class: &Class) -> Vec<Candidate> {
        let program = &*self.program;
        let signature = &class.signature;
        let is_exit_node = signature.hits.binary_search(&program.exit).is_ok();
        let internet = is_exit_node.then_some(&program.inside_internet);
        let atoms =
            signature.hits.iter().chain(internet.into_iter().flatten()).chain(&program.everybody);
        let mut candidates: Vec<Candidate> = atoms
            .flat_map(|atom| program.items_at(*atom))
            .map(|(item, place)| Candidate { item: *item, place: *place })
            .collect();
        for number in &program.special_items {
            let item = &program.items[*number as usize];
            let is_concerned = match item.scope {
                Scope::Tailnet => false,
                Scope::SelfNodes => signature.user.is_some(),
                Scope::Via(via) => {
                    let routers = program.vias[via as usize].routers;
                    signature.hits.binary_search(&routers).is_ok()
                }
            };
            if is_concerned {
                let places = item.destinations.clone();
                candidates.extend(places.map(|place| Candidate { item: *number, place }));
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        candidates
    }

    /// An item reduced to a node; `None` if nothing is left of it.
    fn rule(&self, to: &Receiver<'_>, item: &Item, places: &[Candidate]) -> Option<FilterRule> {
        if item.scope == Scope::SelfNodes {
            return self.self_rule(to, item);
        }
        let src_ips = self.source_text(item.sources);
        let destinations = places.iter().map(|at| self.program.destination(at.place));
        match &item.effect {
            Effect::Ports { proto, ports } => {
                let mut dst_ports = Vec::new();
                for destination in destinations {
                    for ip in self.addresses_hit(to, item.scope, destination) {
                        let range =
                            |ports: &PortRange| NetPortRange { ip: ip.clone(), ports: *ports };
                        dst_ports.extend(ports.iter().map(range));
                    }
                }
                let is_nothing = src_ips.is_empty() || dst_ports.is_empty();
                (!is_nothing).then_some(FilterRule {
                    src_ips,
                    dst_ports,
                    ip_proto: *proto,
                    cap_grant: Vec::new(),
                })
            }
            Effect::Capabilities(cap_map) => {
                let cap_grant: Vec<CapGrant> = destinations
                    .map(|destination| self.prefixes_hit(to, destination))
                    .filter(|dsts| !dsts.is_empty())
                    .map(|dsts| CapGrant { dsts, cap_map: cap_map.clone() })
                    .collect();
                capability_rule(src_ips, cap_grant)
            }
            Effect::Companion(cap_map) => {
                let dsts = self.companion_prefixes(to, item);
                let cap_grant =
                    (!dsts.is_empty()).then(|| CapGrant { dsts, cap_map: cap_map.clone() });
                capability_rule(src_ips, cap_grant.into_iter().collect())
            }
        }
    }

    /// A rule among the nodes of one user: sources are those of them that the rule's sources select.
    fn self_rule(&self, to: &Receiver<'_>, item: &Item) -> Option<FilterRule> {
        let own = self.nodes_of_user(to.class.signature.user?)?;
        let own: Vec<&NodeFacts> = own.iter().filter_map(|id| self.node(NodeId(id))).collect();
        let written = if let Effect::Companion(_) = item.effect {
            self.program.destinations_of(item).to_vec()
        } else {
            self.program.keys.get(item.sources).atoms.to_vec()
        };
        let sources: Vec<&NodeFacts> = own
            .iter()
            .filter(|node| self.class(node.id).is_some_and(|class| self.is_any(&written, class)))
            .copied()
            .collect();
        if sources.is_empty() {
            return None;
        }
        let texts = |nodes: &[&NodeFacts]| {
            let set: IpRanges = nodes.iter().flat_map(|node| node.addresses()).collect();
            sorted_text(set.ranges().map(|range| range.to_string().into()))
        };
        let reached = |nodes: &[&NodeFacts]| -> Vec<IpAddr> {
            let is_hit = |address: &IpAddr| to.has(*address) || to.carries(&IpNet::from(*address));
            nodes.iter().flat_map(|node| node.addresses()).filter(is_hit).collect()
        };
        match &item.effect {
            Effect::Ports { proto, ports } => {
                let dst_ports: Vec<NetPortRange> = reached(&own)
                    .into_iter()
                    .flat_map(|address| {
                        let ip: Arc<str> = address.to_string().into();
                        ports
                            .iter()
                            .map(move |ports| NetPortRange { ip: ip.clone(), ports: *ports })
                    })
                    .collect();
                (!dst_ports.is_empty()).then(|| FilterRule {
                    src_ips: texts(&sources),
                    dst_ports,
                    ip_proto: *proto,
                    cap_grant: Vec::new(),
                })
            }
            Effect::Capabilities(cap_map) => {
                let grant = |dsts| CapGrant { dsts, cap_map: cap_map.clone() };
                let cap_grant = own
                    .iter()
                    .map(|node| reached(&[*node]).into_iter().map(IpNet::from).collect::<Vec<_>>())
                    .filter(|dsts| !dsts.is_empty())
                    .map(grant)
                    .collect();
                capability_rule(texts(&sources), cap_grant)
            }
            Effect::Companion(_) if !sources.iter().any(|node| node.id == to.facts.id) => None,
            Effect::Companion(cap_map) => {
                let dsts: Vec<IpNet> = reached(&sources).into_iter().map(IpNet::from).collect();
                let grant = (!dsts.is_empty()).then(|| CapGrant { dsts, cap_map: cap_map.clone() });
                capability_rule(texts(&own), grant.into_iter().collect())
            }
        }
    }

    /// Whether one of the atoms selects the nodes of a class.
    fn is_any(&self, atoms: &[Atom], class: &Class) -> bool {
        atoms.iter().any(|atom| {
            *self.program.kind(*atom) == Kind::Everybody
                || class.signature.members.binary_search(atom).is_ok()
        })
    }

    /// What a port rule's destination leaves in a node's filter.
    fn addresses_hit(&self, to: &Receiver<'_>, scope: Scope, atom: Atom) -> Vec<Arc<str>> {
        let is_via = scope != Scope::Tailnet;
        match self.program.kind(atom) {
            Kind::Everybody if is_via => Vec::new(),
            Kind::Everybody => vec!["*".into()],
            Kind::Identity => {
                self.node_addresses_hit(to, atom, is_via).map(|ip| ip.to_string().into()).collect()
            }
            Kind::Literal(ranges) if is_via => texts_where(ranges, |range| to.carries_some(range)),
            Kind::Literal(ranges) => texts_where(ranges, |range| to.is_hit_by(range)),
            Kind::Internet if is_via => internet_where(|_| to.is_exit_node),
            Kind::Internet => internet_where(|range| to.is_hit_by(range)),
            Kind::SelfNodes => Vec::new(),
        }
    }

    /// What a companion's destinations, which are sources of the written rule, leave: they are one set of addresses.
    fn companion_prefixes(&self, to: &Receiver<'_>, item: &Item) -> Vec<IpNet> {
        let sets: Vec<IpRanges> = self
            .program
            .destinations_of(item)
            .iter()
            .map(|to| match self.policy().selectors.get(*to as usize) {
                Some(Selector::Any) => WILDCARD.clone(),
                Some(Selector::DangerAll) => IpRanges::all(),
                _ => self.addresses_of(*to),
            })
            .collect();
        let union = IpRanges::union(&sets);
        to.prefixes_in(&union)
    }

    /// What a destination of capabilities leaves: of each prefix the node's addresses in it, else all of it if it meets
    /// a route of the node.
    fn prefixes_hit(&self, to: &Receiver<'_>, atom: Atom) -> Vec<IpNet> {
        match self.program.kind(atom) {
            Kind::Everybody => to.prefixes_in(&IpRanges::all()),
            Kind::Literal(ranges) => to.prefixes_in(ranges),
            Kind::Identity => self.node_addresses_hit(to, atom, false).map(IpNet::from).collect(),
            Kind::Internet | Kind::SelfNodes => Vec::new(),
        }
    }

    /// Addresses of an identity's nodes that a node has or carries.
    fn node_addresses_hit<'a>(
        &'a self,
        to: &'a Receiver<'a>,
        atom: Atom,
        only_carried: bool,
    ) -> impl Iterator<Item = IpAddr> + 'a {
        let signature = &to.class.signature;
        let is_member = signature.members.binary_search(&atom).is_ok();
        let own = to
            .facts
            .addresses()
            .filter(move |ip| is_member && (!only_carried || to.carries(&IpNet::from(*ip))));
        let is_covered_member = move |id: &&NodeId| {
            self.class(**id)
                .is_some_and(|class| class.signature.members.binary_search(&atom).is_ok())
        };
        let covered = signature.covered.iter().filter(is_covered_member);
        let covered = covered.filter_map(|id| self.node(*id)).flat_map(NodeFacts::addresses);
        own.chain(covered.filter(|ip| to.carries(&IpNet::from(*ip))))
    }

    /// The `SrcIPs` of a source, from the IP-set cache.
    pub(crate) fn source_text(&self, key: SourceKeyId) -> SourceText {
        let stamp = self.stamp_of(key);
        self.program.cache.get_or_make(key, stamp, || self.make_source_text(key))
    }

    fn make_source_text(&self, key: SourceKeyId) -> SourceText {
        let key = self.program.keys.get(key);
        if key.is_danger_all {
            return Arc::new(["*".into()]);
        }
        let is_joined = !key.is_everybody && !key.is_reversed;
        if is_joined {
            let sets: Vec<_> = key.atoms.iter().map(|atom| self.addresses_of(*atom)).collect();
            let union = IpRanges::union(&sets);
            return sorted_text(union.ranges().map(|range| range.to_string().into()));
        }
        let each = key.atoms.iter().flat_map(|atom| {
            let set = self.addresses_of(*atom);
            set.ranges().map(|range| range.to_string().into()).collect::<Vec<Arc<str>>>()
        });
        let routes = self.routes.keys().filter(|route| route.prefix_len() > 0);
        let wildcard = WILDCARD.ranges().map(|range| range.to_string().into());
        let everybody = wildcard.chain(routes.map(|route| route.to_string().into()));
        sorted_text(each.chain(key.is_everybody.then_some(everybody).into_iter().flatten()))
    }

    /// The addresses of an atom but `*`.
    fn addresses_of(&self, atom: Atom) -> IpRanges {
        match self.program.kind(atom) {
            Kind::Literal(ranges) => ranges.clone(),
            Kind::Internet => INTERNET.clone(),
            Kind::Identity => {
                let nodes = self.nodes_in(atom);
                nodes
                    .iter()
                    .filter_map(|id| self.node(NodeId(id)))
                    .flat_map(NodeFacts::addresses)
                    .collect()
            }
            Kind::Everybody | Kind::SelfNodes => IpRanges::default(),
        }
    }

    /// Whether a rule has any destination: one for nobody is not there.
    fn has_destination(&self, item: &Item) -> bool {
        self.program.destinations_of(item).iter().any(|to| match self.program.kind(*to) {
            Kind::Everybody | Kind::Internet => true,
            Kind::Literal(ranges) => !ranges.is_empty(),
            Kind::Identity => self.has_nodes(*to),
            Kind::SelfNodes => false,
        })
    }

    /// Where in the tailnet's rules those of the same sources and protocol begin.
    fn find_firsts(&self) -> Firsts {
        let mut firsts = Firsts::default();
        for (number, item) in (0..).zip(&self.program.items) {
            if let (Effect::Ports { proto, .. }, Scope::Tailnet) = (&item.effect, item.scope) {
                let text = self.source_text(item.sources);
                if !text.is_empty() && self.has_destination(item) {
                    firsts.entry((text, *proto)).or_insert(number);
                }
            }
        }
        firsts
    }
}

impl Receiver<'_> {
    fn has(&self, address: IpAddr) -> bool {
        self.facts.addresses().any(|own| own == address)
    }

    /// Whether one of its subnet routes shares an address with a prefix.
    fn carries(&self, prefix: &IpNet) -> bool {
        self.subnets.iter().any(|route| route.contains(prefix) || prefix.contains(route))
    }

    /// Of each prefix of a set the node's addresses in it, else all of it if it meets a route of the node.
    fn prefixes_in(&self, set: &IpRanges) -> Vec<IpNet> {
        let prefixes = set.prefixes().flat_map(|prefix| {
            let inside = self.facts.addresses().filter(|ip| prefix.contains(ip));
            let inside: Vec<IpNet> = inside.map(IpNet::from).collect();
            let is_carried = inside.is_empty() && self.carries(&prefix);
            inside.into_iter().chain(is_carried.then_some(prefix))
        });
        let mut prefixes: Vec<IpNet> = prefixes.collect();
        prefixes.sort();
        prefixes.dedup();
        prefixes
    }

    fn carries_some(&self, range: IpRange) -> bool {
        let set: IpRanges = range.prefixes().collect();
        self.subnets.iter().any(|route| set.overlaps(route))
    }

    fn is_hit_by(&self, range: IpRange) -> bool {
        let set: IpRanges = range.prefixes().collect();
        self.facts.addresses().any(|own| set.contains(own))
            || self.subnets.iter().any(|route| set.overlaps(route))
            || self.is_exit_node && INTERNET.covers(&set)
    }
}

/// Texts of the ranges that something is true of.
fn texts_where(set: &IpRanges, is_wanted: impl Fn(IpRange) -> bool) -> Vec<Arc<str>> {
    set.ranges().filter(|range| is_wanted(*range)).map(|range| range.to_string().into()).collect()
}

/// The same of the Internet, whose ranges are written by their ends even where one is a prefix.
fn internet_where(is_wanted: impl Fn(IpRange) -> bool) -> Vec<Arc<str>> {
    let text = |range: IpRange| format!("{}-{}", range.first, range.last).into();
    INTERNET.ranges().filter(|range| is_wanted(*range)).map(text).collect()
}

fn sorted_text(texts: impl Iterator<Item = Arc<str>>) -> SourceText {
    let mut texts: Vec<Arc<str>> = texts.collect();
    texts.sort_unstable();
    texts.dedup();
    texts.into()
}

/// A rule of capabilities. Without sources it is still sent, as the service does.
fn capability_rule(src_ips: SourceText, cap_grant: Vec<CapGrant>) -> Option<FilterRule> {
    (!cap_grant.is_empty()).then(|| FilterRule {
        src_ips,
        dst_ports: Vec::new(),
        ip_proto: None,
        cap_grant,
    })
}
