//! A policy worked out as far as it can be without nodes: who is the source of what.
//!
//! *Atoms* number everything that a node can be hit by: the policy's selectors first, then sources narrowed by a
//! posture, then what only destinations have: exit nodes, and the routers of each `via` grant. Edges lead from
//! source atoms to destination atoms. `*` on either side is not an edge but a mark on the other side, for it
//! hits everybody.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use ipnet::IpNet;

use crate::policy::{
    Acl, AppCapabilities, Grant, NodeAttributes, Policy, PortRange, RawJson, Selector, SelectorId,
    SshRule,
};
use crate::ranges::IpRanges;
use crate::sources::{SourceCache, SourceKey, SourceKeyId, SourceKeys};
use crate::view::Capabilities;

/// Something a node can be hit by.
pub(crate) type Atom = u32;

/// Sorted, each once.
pub(crate) type Atoms = Arc<[Atom]>;

/// The Internet as exit nodes serve it. Source: POLICY 6.3 of the design, from captures.
pub(crate) static INTERNET: LazyLock<IpRanges> = LazyLock::new(|| {
    let prefixes = |texts: &[&str]| -> IpRanges {
        texts
            .iter()
            .map(|text| text.parse::<IpNet>().expect("invariant: a literal prefix"))
            .collect()
    };
    let mut internet = prefixes(&["0.0.0.0/0", "2000::/3"]);
    internet.remove(&prefixes(&[
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "100.64.0.0/10",
    ]));
    internet
});

/// What `*` stands for as a source: the addresses of tailnets, without the range that `ChromeOS` uses inside VMs.
pub(crate) static WILDCARD: LazyLock<IpRanges> = LazyLock::new(|| {
    let prefix = |text: &str| -> IpRanges {
        text.parse::<IpNet>().expect("invariant: a literal prefix").into()
    };
    let mut wildcard = prefix("100.64.0.0/10");
    wildcard.remove(&prefix("100.115.92.0/23"));
    wildcard.extend(&prefix("fd7a:115c:a1e0::/48"));
    wildcard
});

/// What a selector is to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nodes by who they belong to.
    Identity,
    /// Addresses.
    Literal(IpRanges),
    /// `*` and `autogroup:danger-all`: everybody.
    Everybody,
    /// `autogroup:self`.
    SelfNodes,
    /// `autogroup:internet`.
    Internet,
}

/// What a rule lets in or tells.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Packets.
    Ports {
        /// None: the default set.
        proto: Option<u8>,
    },
    /// Capabilities of the sources.
    Capabilities(Arc<Capabilities>),
    /// The other direction of capabilities: what the rule's destinations are to its sources.
    Companion(Arc<Capabilities>),
}

/// One filter rule of the tailnet, before it is merged with others and reduced to a node. Its place in
/// [`Program::items`] is its place in every filter.
#[derive(Debug)]
pub(crate) struct Item {
    /// Whose packets it lets in. For a companion: the written rule's destinations.
    pub(crate) sources: SourceKeyId,
    /// To where, in [`Program::destinations`]. For a companion: the written rule's sources.
    pub(crate) destinations: Range<u32>,
    pub(crate) effect: Effect,
    pub(crate) scope: Scope,
}

/// Where a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// On every node that a destination hits.
    Tailnet,
    /// Among the nodes of each user.
    SelfNodes,
    /// On the routers of a `via` grant, an index into [`Program::vias`].
    Via(u32),
}

/// A destination of an [`Item`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct ItemDestination {
    pub(crate) atom: Atom,
    /// Which of [`Program::ports`]; of no meaning for capabilities.
    ports: u32,
}

/// A `via` grant.
#[derive(Debug)]
pub(crate) struct Via {
    /// Atoms of its sources.
    pub(crate) sources: Vec<Atom>,
    /// Whether `*` is a source.
    pub(crate) from_everybody: bool,
    /// Tag selectors of its routers.
    pub(crate) tags: Vec<Atom>,
    pub(crate) destinations: Vec<Atom>,
    /// The atom of its routers.
    pub(crate) routers: Atom,
}

/// Sources of a rule narrowed by postures.
#[derive(Debug)]
pub(crate) struct Postured {
    pub(crate) atom: Atom,
    /// The sources as written.
    pub(crate) sources: Vec<Atom>,
    /// Names of the postures, one of which a device has to meet.
    pub(crate) postures: Vec<Arc<str>>,
}

/// What edges start or end at `*`, and what else is known of an atom.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Marks {
    /// As a source it reaches everybody.
    pub(crate) reaches_everybody: bool,
    /// As a destination it is reached by everybody.
    pub(crate) reached_by_everybody: bool,
    /// As a source it reaches the whole Internet.
    pub(crate) reaches_internet: bool,
    /// As a source it reaches the whole Internet, and not only as a part of everybody.
    pub(crate) reaches_internet_by_name: bool,
    /// As a source it reaches its user's own nodes.
    pub(crate) reaches_self: bool,
}

/// Lists of atoms by atom.
#[derive(Debug, Default)]
pub(crate) struct Adjacency {
    starts: Vec<u32>,
    ends: Vec<Atom>,
}

impl Adjacency {
    /// `edges` are sorted.
    fn new(atom_count: usize, edges: &[(Atom, Atom)]) -> Self {
        let mut starts = vec![0; atom_count + 1];
        for (from, _) in edges {
            starts[*from as usize + 1] += 1;
        }
        for index in 0..atom_count {
            starts[index + 1] += starts[index];
        }
        Self { starts, ends: edges.iter().map(|(_, to)| *to).collect() }
    }

    /// What follows an atom, sorted.
    pub(crate) fn of(&self, atom: Atom) -> &[Atom] {
        let index = atom as usize;
        &self.ends[self.starts[index] as usize..self.starts[index + 1] as usize]
    }
}

fn sorted(mut edges: Vec<(Atom, Atom)>) -> Vec<(Atom, Atom)> {
    edges.sort_unstable();
    edges.dedup();
    edges
}

/// Who may be the source or destination of what, for one policy. Members of groups are not part of it, so that it
/// outlives their changes.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) keys: SourceKeys,
    pub(crate) items: Vec<Item>,
    destinations: Vec<ItemDestination>,
    /// Distinct lists of ports.
    ports: Vec<Arc<[PortRange]>>,
    /// Items and numbers of destinations by destination atom, for rules that hold in the whole tailnet.
    items_by_atom: Vec<Vec<(u32, u32)>>,
    /// Items that hold among users' own nodes, or on routers of `via` grants only.
    pub(crate) special_items: Vec<u32>,
    has_self: bool,
    pub(crate) vias: Vec<Via>,
    pub(crate) marks: Vec<Marks>,
    /// `*` reaches everybody.
    pub(crate) all_to_all: bool,
    /// `*` reaches the whole Internet.
    pub(crate) everybody_reaches_internet: bool,
    /// `*` reaches the whole Internet, and not only as a part of everybody.
    everybody_reaches_internet_by_name: bool,
    /// `*` reaches its user's own nodes.
    pub(crate) everybody_reaches_self: bool,
    /// From sources to destinations.
    pub(crate) reaches: Adjacency,
    /// From destinations to sources.
    pub(crate) reached_by: Adjacency,
    /// The atom of exit nodes.
    pub(crate) exit: Atom,
    /// Literals that lie inside the Internet: exit nodes let their packets in.
    pub(crate) inside_internet: Vec<Atom>,
    /// Atoms that are everybody: `*`, named or implied, and `autogroup:danger-all`.
    pub(crate) everybody: Vec<Atom>,
    pub(crate) literals: Literals,
    /// Sources narrowed by postures.
    pub(crate) postured: Vec<Postured>,
    /// Which of them an atom is written in; those of `*` are in `postured_everybody`.
    pub(crate) postured_by: Adjacency,
    pub(crate) postured_everybody: Vec<u32>,
    /// From atoms to those that stand for all sources of a rule.
    widened: Adjacency,
    pub(crate) cache: SourceCache,
    stamps: AtomicU64,
}

impl Program {
    pub(crate) fn new(policy: &Policy) -> Self {
        Builder::new(policy).build()
    }

    /// A number that was never given before, also not in a draft that came to nothing.
    pub(crate) fn next_stamp(&self) -> u64 {
        self.stamps.fetch_add(1, Ordering::Relaxed)
    }

    /// How many atoms there are.
    pub(crate) fn atom_count(&self) -> usize {
        self.marks.len()
    }

    /// What an atom is; those beyond the selectors are of identity, but for the `*` of a rule that is not written.
    pub(crate) fn kind(&self, atom: Atom) -> &Kind {
        let unnamed =
            if self.everybody.contains(&atom) { &Kind::Everybody } else { &Kind::Identity };
        self.kinds.get(atom as usize).unwrap_or(unnamed)
    }

    pub(crate) fn has_self(&self) -> bool {
        self.has_self
    }

    /// The destinations of an item.
    pub(crate) fn destinations_of(&self, item: &Item) -> &[ItemDestination] {
        &self.destinations[item.destinations.start as usize..item.destinations.end as usize]
    }

    /// A destination by its number.
    pub(crate) fn destination(&self, number: u32) -> ItemDestination {
        self.destinations[number as usize]
    }

    /// The ports of a destination.
    pub(crate) fn ports_of(&self, destination: ItemDestination) -> &Arc<[PortRange]> {
        &self.ports[destination.ports as usize]
    }

    /// Items and numbers of destinations that an atom is.
    pub(crate) fn items_at(&self, atom: Atom) -> &[(u32, u32)] {
        self.items_by_atom.get(atom as usize).map_or(&[], Vec::as_slice)
    }

    /// Sorts atoms and adds those that stand for rules they are sources of.
    pub(crate) fn complete(&self, atoms: &mut Vec<Atom>) {
        for index in 0..atoms.len() {
            atoms.extend_from_slice(self.widened.of(atoms[index]));
        }
        atoms.sort_unstable();
        atoms.dedup();
    }

    /// Whether something hit by `from` reaches something hit by `to`.
    pub(crate) fn does_reach(&self, from: &[Atom], to: &[Atom]) -> bool {
        let marks = |atom: &Atom| self.marks[*atom as usize];
        self.all_to_all
            || from.iter().any(|atom| marks(atom).reaches_everybody)
            || to.iter().any(|atom| marks(atom).reached_by_everybody)
            || from.iter().any(|atom| do_share(self.reaches.of(*atom), to))
    }

    /// The same, but for rules whose destination is `*`.
    pub(crate) fn does_reach_by_name(&self, from: &[Atom], to: &[Atom]) -> bool {
        to.iter().any(|atom| self.marks[*atom as usize].reached_by_everybody)
            || from.iter().any(|atom| do_share(self.reaches.of(*atom), to))
    }

    /// Whether what an atom stands for are nodes by who they belong to, also inside the routes of others: postures say
    /// nothing about addresses.
    pub(crate) fn is_identity(&self, atom: Atom) -> bool {
        self.kinds.get(atom as usize) == Some(&Kind::Identity)
    }

    /// Whether something hit by these reaches the whole Internet.
    pub(crate) fn does_reach_internet(&self, from: &[Atom]) -> bool {
        self.everybody_reaches_internet
            || from.iter().any(|atom| self.marks[*atom as usize].reaches_internet)
    }

    /// The same, but for rules whose destination is `*` alone.
    pub(crate) fn does_reach_internet_by_name(&self, from: &[Atom]) -> bool {
        self.everybody_reaches_internet_by_name
            || from.iter().any(|atom| self.marks[*atom as usize].reaches_internet_by_name)
    }

    /// Whether one of these reaches its user's own nodes.
    pub(crate) fn does_reach_self(&self, from: &[Atom]) -> bool {
        self.everybody_reaches_self
            || from.iter().any(|atom| self.marks[*atom as usize].reaches_self)
    }
}

/// Whether two sorted lists have an item in common.
pub(crate) fn do_share(one: &[Atom], other: &[Atom]) -> bool {
    let (short, long) = if one.len() < other.len() { (one, other) } else { (other, one) };
    if short.len() * 8 < long.len() {
        return short.iter().any(|atom| long.binary_search(atom).is_ok());
    }
    let (mut left, mut right) = (short.iter().peekable(), long.iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        match a.cmp(b) {
            std::cmp::Ordering::Less => left.next(),
            std::cmp::Ordering::Greater => right.next(),
            std::cmp::Ordering::Equal => return true,
        };
    }
    false
}

/// Selectors by what nodes are.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    pub(crate) tags: HashMap<Arc<str>, Atom>,
    /// User and group selectors by the users' login names.
    pub(crate) logins: HashMap<Arc<str>, Vec<Atom>>,
    /// Selectors of whole domains.
    pub(crate) domains: HashMap<Arc<str>, Atom>,
    pub(crate) member: Option<Atom>,
    pub(crate) tagged: Option<Atom>,
    pub(crate) admin: Option<Atom>,
    pub(crate) owner: Option<Atom>,
}

/// Selectors by address.
#[derive(Debug, Default)]
pub(crate) struct Literals {
    by_prefix: HashMap<IpNet, Vec<Atom>>,
    /// The same, sorted by network: whatever lies inside a prefix stands together.
    sorted: Vec<(IpNet, Atom)>,
    /// Lengths in use.
    lengths_v4: Vec<u8>,
    lengths_v6: Vec<u8>,
}

impl Literals {
    fn new(literals: impl Iterator<Item = (Atom, Vec<IpNet>)>) -> Self {
        let mut index = Self::default();
        for (atom, prefixes) in literals {
            for prefix in prefixes {
                index.by_prefix.entry(prefix).or_default().push(atom);
                index.sorted.push((prefix, atom));
            }
        }
        index.sorted.sort_unstable();
        for prefix in index.by_prefix.keys() {
            match prefix {
                IpNet::V4(prefix) => index.lengths_v4.push(prefix.prefix_len()),
                IpNet::V6(prefix) => index.lengths_v6.push(prefix.prefix_len()),
            }
        }
        for lengths in [&mut index.lengths_v4, &mut index.lengths_v6] {
            lengths.sort_unstable();
            lengths.dedup();
        }
        index
    }

    /// Adds every literal that shares an address with a prefix.
    pub(crate) fn add_overlapping(&self, prefix: IpNet, atoms: &mut Vec<Atom>) {
        let lengths = if prefix.addr().is_ipv4() { &self.lengths_v4 } else { &self.lengths_v6 };
        for length in lengths.iter().take_while(|length| **length < prefix.prefix_len()) {
            let wider = IpNet::new(prefix.addr(), *length)
                .expect("invariant: shorter than a valid length")
                .trunc();
            atoms.extend(self.by_prefix.get(&wider).into_iter().flatten());
        }
        let prefix = prefix.trunc();
        let start = self.sorted.partition_point(|(known, _)| known.network() < prefix.network());
        let inside = |(known, _): &&(IpNet, Atom)| prefix.contains(&known.network());
        let narrower = self.sorted[start..].iter().take_while(inside);
        atoms.extend(
            narrower
                .filter(|(known, _)| known.prefix_len() >= prefix.prefix_len())
                .map(|(_, atom)| *atom),
        );
    }
}

struct Builder<'a> {
    policy: &'a Policy,
    kinds: Vec<Kind>,
    keys: SourceKeys,
    items: Vec<Item>,
    destinations: Vec<ItemDestination>,
    ports: Vec<Arc<[PortRange]>>,
    special_items: Vec<u32>,
    vias: Vec<Via>,
    edges: Vec<(Atom, Atom)>,
    /// Beside the marks of atoms: of `*` as a source.
    marks: Vec<Marks>,
    everybody: Marks,
    atom_count: Atom,
    exit: Atom,
    /// The atom of `*`, if it is named.
    any: Option<Atom>,
    postured: Vec<Postured>,
    postured_known: HashMap<(Vec<Atom>, Vec<Arc<str>>), Atom>,
    /// From sources to numbers of `postured`.
    postured_by: Vec<(Atom, u32)>,
    postured_everybody: Vec<u32>,
    /// Atoms that stand for several sources, by those.
    wide_known: HashMap<Vec<Atom>, Atom>,
    widened: Vec<(Atom, Atom)>,
    ports_known: HashMap<Arc<[PortRange]>, u32>,
    /// Keys of rules with one source, by its atom: most rules have but one.
    single_keys: Vec<Option<SourceKeyId>>,
}

/// A rule as written: an entry of `grants`, or one destination of an entry of `acls`.
struct Rule<'a> {
    src: &'a [SelectorId],
    src_posture: &'a [Arc<str>],
    dst: &'a [SelectorId],
    ip: &'a [(Option<u8>, &'a [PortRange])],
    app: &'a AppCapabilities,
    via: &'a [SelectorId],
}

/// Capabilities that give the other side one, too. Source: tailscale `tailcfg.PeerCapabilityTaildriveSharer` and
/// `PeerCapabilityRelayTarget`.
const COMPANIONS: [(&str, &str); 2] = [
    ("tailscale.com/cap/drive", "tailscale.com/cap/drive-sharer"),
    ("tailscale.com/cap/relay", "tailscale.com/cap/relay-target"),
];

impl<'a> Builder<'a> {
    fn new(policy: &'a Policy) -> Self {
        let any = position(policy, &Selector::Any);
        let kinds: Vec<Kind> =
            policy.selectors.iter().map(|selector| kind_of(policy, selector)).collect();
        let atom_count = Atom::try_from(kinds.len()).expect("invariant: texts are bounded") + 1;
        Self {
            policy,
            marks: vec![Marks::default(); atom_count as usize],
            exit: atom_count - 1,
            any,
            atom_count,
            single_keys: vec![None; kinds.len()],
            kinds,
            keys: SourceKeys::default(),
            items: Vec::new(),
            destinations: Vec::new(),
            ports: Vec::new(),
            special_items: Vec::new(),
            vias: Vec::new(),
            edges: Vec::new(),
            everybody: Marks::default(),
            postured: Vec::new(),
            postured_known: HashMap::new(),
            postured_by: Vec::new(),
            postured_everybody: Vec::new(),
            wide_known: HashMap::new(),
            widened: Vec::new(),
            ports_known: HashMap::new(),
        }
    }

    fn build(mut self) -> Program {
        self.add_rules();
        self.edges.sort_unstable();
        self.edges.dedup();
        let atom_count = self.atom_count as usize;
        let reaches = Adjacency::new(atom_count, &self.edges);
        for edge in &mut self.edges {
            *edge = (edge.1, edge.0);
        }
        self.edges.sort_unstable();
        let reached_by = Adjacency::new(atom_count, &self.edges);
        let literals = (0..).zip(&self.kinds).filter_map(|(atom, kind)| match kind {
            Kind::Literal(ranges) => Some((atom, ranges.prefixes().collect())),
            Kind::Internet => Some((atom, INTERNET.prefixes().collect())),
            Kind::Identity | Kind::Everybody | Kind::SelfNodes => None,
        });
        let inside_internet = (0..)
            .zip(&self.kinds)
            .filter(|(_, kind)| match kind {
                Kind::Literal(ranges) => {
                    ranges.ranges().any(|range| INTERNET.covers(&range.prefixes().collect()))
                }
                Kind::Internet => true,
                Kind::Identity | Kind::Everybody | Kind::SelfNodes => false,
            })
            .map(|(atom, _)| atom)
            .collect();
        Program {
            literals: Literals::new(literals),
            everybody: self
                .any
                .into_iter()
                .chain(position(self.policy, &Selector::DangerAll))
                .collect(),
            inside_internet,
            items_by_atom: items_by_atom(atom_count, &self.items, &self.destinations),
            cache: SourceCache::new(self.keys.len()),
            keys: self.keys,
            has_self: self
                .special_items
                .iter()
                .any(|number| self.items[*number as usize].scope == Scope::SelfNodes),
            items: self.items,
            destinations: self.destinations,
            ports: self.ports,
            special_items: self.special_items,
            vias: self.vias,
            all_to_all: self.everybody.reaches_everybody,
            everybody_reaches_internet: self.everybody.reaches_internet,
            everybody_reaches_internet_by_name: self.everybody.reaches_internet_by_name,
            everybody_reaches_self: self.everybody.reaches_self,
            marks: self.marks,
            reaches,
            reached_by,
            exit: self.exit,
            postured: self.postured,
            postured_by: Adjacency::new(atom_count, &sorted(self.postured_by)),
            postured_everybody: self.postured_everybody,
            widened: Adjacency::new(atom_count, &sorted(self.widened)),
            kinds: self.kinds,
            stamps: AtomicU64::new(1),
        }
    }

    /// All grants in the order of the text, then all acls.
    fn add_rules(&mut self) {
        let policy = self.policy;
        if policy.allows_all() {
            return self.add_implicit_rule();
        }
        for grant in policy.grants.iter().flatten() {
            let ip: Vec<_> = grant.ip.iter().map(|ip| (ip.proto, &ip.ports[..])).collect();
            self.add_rule(&Rule {
                src: &grant.src,
                src_posture: &grant.src_posture,
                dst: &grant.dst,
                ip: &ip,
                app: &grant.app,
                via: &grant.via,
            });
        }
        for acl in policy.acls.iter().flatten() {
            let is_self = |index: &usize| {
                matches!(policy.selector(acl.dst[*index].selector), Selector::SelfNodes)
            };
            let mut order: Vec<usize> = (0..acl.dst.len()).collect();
            if acl.dst.iter().any(|dst| !is_autogroup(policy.selector(dst.selector))) {
                order.sort_by_key(is_self);
            }
            for index in order {
                let destination = &acl.dst[index];
                self.add_rule(&Rule {
                    src: &acl.src,
                    src_posture: &acl.src_posture,
                    dst: std::slice::from_ref(&destination.selector),
                    ip: &[(acl.proto, &destination.ports)],
                    app: &Vec::new(),
                    via: &[],
                });
            }
        }
    }

    /// `* -> *:*`, of a policy that says nothing. `*` may have no atom then.
    fn add_implicit_rule(&mut self) {
        self.everybody =
            Marks { reaches_everybody: true, reaches_internet: true, ..Marks::default() };
        let any = self.any.unwrap_or_else(|| self.new_atom());
        self.any = Some(any);
        let sources = self.keys.intern(SourceKey::everybody());
        let ports = self.ports(&[PortRange::ALL]);
        let effect = Effect::Ports { proto: None };
        self.add_item(sources, &[any], ports, effect, Scope::Tailnet);
    }

    fn new_atom(&mut self) -> Atom {
        let atom = self.atom_count;
        self.atom_count += 1;
        self.marks.push(Marks::default());
        atom
    }

    fn add_rule(&mut self, rule: &Rule<'_>) {
        if rule.src.is_empty() || rule.dst.is_empty() {
            return;
        }
        let src = self.sources(rule);
        let key = self.key(&src);
        let mut dst: Vec<Atom> = rule.dst.iter().map(|selector| selector.0).collect();
        if !rule.via.is_empty() {
            return self.add_via(rule, &dst, &src, key);
        }
        let own = dst.iter().copied().find(|atom| self.kinds[*atom as usize] == Kind::SelfNodes);
        dst.retain(|atom| Some(*atom) != own);
        if !dst.is_empty() {
            self.add_edges(&src, &dst);
            self.add_items(rule, &src, key, &dst, Scope::Tailnet);
        }
        if let Some(own) = own {
            self.mark_sources(&src, |marks| marks.reaches_self = true);
            self.add_items(rule, &src, key, &[own], Scope::SelfNodes);
        }
    }

    /// The atoms of a rule's sources: its selectors, or one atom for those of them who meet a posture.
    fn sources(&mut self, rule: &Rule<'_>) -> Vec<Atom> {
        let mut atoms: Vec<Atom> = rule.src.iter().map(|selector| selector.0).collect();
        atoms.sort_unstable();
        atoms.dedup();
        if rule.src_posture.is_empty() {
            return atoms;
        }
        let known = (atoms, rule.src_posture.to_vec());
        if let Some(atom) = self.postured_known.get(&known) {
            return vec![*atom];
        }
        let atom = self.new_atom();
        let number = u32::try_from(self.postured.len()).expect("invariant: texts are bounded");
        if known.0.iter().any(|source| self.is_everybody(*source)) {
            self.postured_everybody.push(number);
        } else {
            self.postured_by.extend(known.0.iter().map(|source| (*source, number)));
        }
        let (sources, postures) = known.clone();
        self.postured.push(Postured { atom, sources, postures });
        self.postured_known.insert(known, atom);
        vec![atom]
    }

    fn key(&mut self, atoms: &[Atom]) -> SourceKeyId {
        let single = match atoms {
            [atom] => self.single_keys.get(*atom as usize).copied().flatten(),
            _ => None,
        };
        single.unwrap_or_else(|| self.new_key(atoms))
    }

    fn new_key(&mut self, atoms: &[Atom]) -> SourceKeyId {
        let key = SourceKey::of_sources(atoms, self.policy);
        let id = self.keys.intern(key);
        if let [atom] = atoms
            && let Some(single) = self.single_keys.get_mut(*atom as usize)
        {
            *single = Some(id);
        }
        id
    }

    fn mark_sources(&mut self, src: &[Atom], mark: impl Fn(&mut Marks)) {
        for atom in src {
            if self.is_everybody(*atom) {
                mark(&mut self.everybody);
            } else {
                mark(&mut self.marks[*atom as usize]);
            }
        }
    }

    fn add_edges(&mut self, src: &[Atom], dst: &[Atom]) {
        let to_everybody = dst.iter().any(|atom| self.is_everybody(*atom));
        let covers_by_name = self.union(dst).covers(&INTERNET);
        let covers_internet = to_everybody || covers_by_name;
        if to_everybody {
            self.mark_sources(src, |marks| marks.reaches_everybody = true);
        }
        if covers_internet {
            self.mark_sources(src, |marks| marks.reaches_internet = true);
        }
        if covers_by_name {
            self.mark_sources(src, |marks| marks.reaches_internet_by_name = true);
        }
        let is_from_everybody = src.iter().any(|atom| self.is_everybody(*atom));
        let wide = self.widen(src, dst.len());
        for to in dst.iter().copied().chain(covers_internet.then_some(self.exit)) {
            if self.is_everybody(to) {
                continue;
            }
            self.marks[to as usize].reached_by_everybody |= is_from_everybody;
            self.edges.extend(wide.iter().map(|from| (*from, to)));
        }
    }

    /// The atoms that edges of a rule start at. Several sources of several destinations are one atom: the product of
    /// both lists has no bound in the length of the text.
    fn widen(&mut self, src: &[Atom], destinations: usize) -> Vec<Atom> {
        let named: Vec<Atom> =
            src.iter().copied().filter(|atom| !self.is_everybody(*atom)).collect();
        if named.len() < 2 || destinations < 2 {
            return named;
        }
        if let Some(wide) = self.wide_known.get(&named) {
            return vec![*wide];
        }
        let wide = self.new_atom();
        self.widened.extend(named.iter().map(|atom| (*atom, wide)));
        self.wide_known.insert(named, wide);
        vec![wide]
    }

    fn is_everybody(&self, atom: Atom) -> bool {
        self.kinds.get(atom as usize) == Some(&Kind::Everybody)
    }

    /// The addresses that destinations name by themselves.
    fn union(&self, atoms: &[Atom]) -> IpRanges {
        IpRanges::union(atoms.iter().filter_map(|atom| match &self.kinds[*atom as usize] {
            Kind::Literal(ranges) => Some(ranges),
            Kind::Internet => Some(&*INTERNET),
            Kind::Identity | Kind::Everybody | Kind::SelfNodes => None,
        }))
    }

    /// Port rules in the order of `ip`, then capabilities, then their companions.
    fn add_items(
        &mut self,
        rule: &Rule<'_>,
        src: &[Atom],
        key: SourceKeyId,
        dst: &[Atom],
        scope: Scope,
    ) {
        for (proto, ports) in rule.ip {
            let ports = self.ports(ports);
            self.add_item(key, dst, ports, Effect::Ports { proto: *proto }, scope);
        }
        if rule.app.is_empty() {
            return;
        }
        let effect = Effect::Capabilities(Arc::new(capabilities(rule.app)));
        self.add_item(key, dst, 0, effect, scope);
        for (capability, companion) in COMPANIONS {
            if rule.app.iter().any(|(name, _)| **name == *capability) {
                let companion: Capabilities = [(Arc::from(companion), None)].into_iter().collect();
                let sources = self.keys.intern(SourceKey::of_destinations(dst, self.policy));
                self.add_item(sources, src, 0, Effect::Companion(Arc::new(companion)), scope);
            }
        }
    }

    fn add_item(
        &mut self,
        sources: SourceKeyId,
        destinations: &[Atom],
        ports: u32,
        effect: Effect,
        scope: Scope,
    ) {
        let count = |len| u32::try_from(len).expect("invariant: texts are bounded");
        let start = count(self.destinations.len());
        self.destinations
            .extend(destinations.iter().map(|atom| ItemDestination { atom: *atom, ports }));
        if scope != Scope::Tailnet {
            self.special_items.push(count(self.items.len()));
        }
        let destinations = start..count(self.destinations.len());
        self.items.push(Item { sources, destinations, effect, scope });
    }

    /// A grant by way of routers: its rules are theirs alone, and of its capabilities nobody is told.
    fn add_via(&mut self, rule: &Rule<'_>, dst: &[Atom], src: &[Atom], key: SourceKeyId) {
        let number = u32::try_from(self.vias.len()).expect("invariant: texts are bounded");
        let routers = self.new_atom();
        self.vias.push(Via {
            sources: src.iter().copied().filter(|atom| !self.is_everybody(*atom)).collect(),
            from_everybody: src.iter().any(|atom| self.is_everybody(*atom)),
            tags: rule.via.iter().map(|tag| tag.0).collect(),
            destinations: dst.to_vec(),
            routers,
        });
        let via = &self.vias[number as usize];
        self.marks[routers as usize].reached_by_everybody = via.from_everybody;
        self.edges.extend(via.sources.iter().map(|from| (*from, routers)));
        for (proto, ports) in rule.ip {
            let (ports, effect) = (self.ports(ports), Effect::Ports { proto: *proto });
            self.add_item(key, dst, ports, effect, Scope::Via(number));
        }
    }

    /// The number of a list of ports.
    fn ports(&mut self, ports: &[PortRange]) -> u32 {
        if let Some(known) = self.ports_known.get(ports) {
            return *known;
        }
        let number = u32::try_from(self.ports.len()).expect("invariant: texts are bounded");
        let ports: Arc<[PortRange]> = ports.into();
        self.ports.push(ports.clone());
        self.ports_known.insert(ports, number);
        number
    }
}

fn capabilities(app: &AppCapabilities) -> Capabilities {
    let value = |values: &Vec<RawJson>| (!values.is_empty()).then(|| values.clone());
    app.iter().map(|(name, values)| (name.clone(), value(values))).collect()
}

fn is_autogroup(selector: &Selector) -> bool {
    match selector {
        Selector::Member
        | Selector::Tagged
        | Selector::SelfNodes
        | Selector::Internet
        | Selector::DangerAll
        | Selector::Admin
        | Selector::Owner => true,
        Selector::Any
        | Selector::User(_)
        | Selector::UserDomain(_)
        | Selector::Group(_)
        | Selector::Tag(_)
        | Selector::Host(_)
        | Selector::IpSet(_)
        | Selector::Prefix(_) => false,
    }
}

fn kind_of(policy: &Policy, selector: &Selector) -> Kind {
    match selector {
        Selector::Any | Selector::DangerAll => Kind::Everybody,
        Selector::SelfNodes => Kind::SelfNodes,
        Selector::Internet => Kind::Internet,
        Selector::Host(name) => {
            Kind::Literal(policy.hosts.get(name).copied().map(IpRanges::from).unwrap_or_default())
        }
        Selector::IpSet(name) => {
            Kind::Literal(policy.ipsets.get(name).cloned().unwrap_or_default())
        }
        Selector::Prefix(prefix) => Kind::Literal((*prefix).into()),
        Selector::User(_)
        | Selector::UserDomain(_)
        | Selector::Group(_)
        | Selector::Tag(_)
        | Selector::Member
        | Selector::Tagged
        | Selector::Admin
        | Selector::Owner => Kind::Identity,
    }
}

fn position(policy: &Policy, wanted: &Selector) -> Option<Atom> {
    let index = policy.selectors.iter().position(|selector| selector == wanted)?;
    Atom::try_from(index).ok()
}

/// Items by destination, in the order of the items.
fn items_by_atom(
    atom_count: usize,
    items: &[Item],
    destinations: &[ItemDestination],
) -> Vec<Vec<(u32, u32)>> {
    let mut index = vec![Vec::new(); atom_count];
    for (number, item) in (0..).zip(items) {
        if item.scope == Scope::Tailnet {
            for place in item.destinations.clone() {
                index[destinations[place as usize].atom as usize].push((number, place));
            }
        }
    }
    index
}

impl Identities {
    pub(crate) fn new(policy: &Policy) -> Self {
        let mut index = Self::default();
        let login =
            |token: &Arc<str>| -> Arc<str> { token.strip_suffix('@').unwrap_or(token).into() };
        for (atom, selector) in (0..).zip(&policy.selectors) {
            match selector {
                Selector::User(token) => index.logins.entry(login(token)).or_default().push(atom),
                Selector::Group(name) => {
                    for token in policy.groups.get(name).into_iter().flatten() {
                        index.logins.entry(login(token)).or_default().push(atom);
                    }
                }
                Selector::UserDomain(domain) => {
                    index.domains.insert(domain.clone(), atom);
                }
                Selector::Tag(tag) => {
                    index.tags.insert(tag.clone(), atom);
                }
                Selector::Member => index.member = Some(atom),
                Selector::Tagged => index.tagged = Some(atom),
                Selector::Admin => index.admin = Some(atom),
                Selector::Owner => index.owner = Some(atom),
                Selector::Any
                | Selector::Host(_)
                | Selector::IpSet(_)
                | Selector::Prefix(_)
                | Selector::SelfNodes
                | Selector::Internet
                | Selector::DangerAll => {}
            }
        }
        index
    }
}

/// Whether two policies differ at most in the members of groups, in tests, and in where things stand in the text.
pub(crate) fn has_same_rules(one: &Policy, other: &Policy) -> bool {
    let acls = |one: &Acl, other: &Acl| {
        one.src == other.src
            && one.dst == other.dst
            && one.proto == other.proto
            && one.src_posture == other.src_posture
    };
    let grants = |one: &Grant, other: &Grant| Grant { line: one.line, ..other.clone() } == *one;
    let ssh = |one: &SshRule, other: &SshRule| SshRule { line: one.line, ..other.clone() } == *one;
    let attributes = |one: &NodeAttributes, other: &NodeAttributes| {
        NodeAttributes { line: one.line, ..other.clone() } == *one
    };
    let lists = |policy: &Policy| (policy.acls.is_some(), policy.grants.is_some());
    let flags = |policy: &Policy| {
        (policy.randomize_client_port, policy.disable_ipv4, policy.one_cgnat_route)
    };
    one.selectors == other.selectors
        && one.groups.keys().eq(other.groups.keys())
        && one.hosts == other.hosts
        && one.ipsets == other.ipsets
        && one.tag_owners == other.tag_owners
        && one.auto_approvers == other.auto_approvers
        && one.postures == other.postures
        && lists(one) == lists(other)
        && flags(one) == flags(other)
        && are_all(one.acls.iter().flatten(), other.acls.iter().flatten(), acls)
        && are_all(one.grants.iter().flatten(), other.grants.iter().flatten(), grants)
        && are_all(one.ssh.iter(), other.ssh.iter(), ssh)
        && are_all(one.node_attrs.iter(), other.node_attrs.iter(), attributes)
}

fn are_all<'a, T: 'a>(
    one: impl Iterator<Item = &'a T>,
    mut other: impl Iterator<Item = &'a T>,
    are_alike: impl Fn(&T, &T) -> bool,
) -> bool {
    one.map(Some).all(|item| item.zip(other.next()).is_some_and(|(a, b)| are_alike(a, b)))
        && other.next().is_none()
}
