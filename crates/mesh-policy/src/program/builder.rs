//! From a checked policy to its program.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use foldhash::{HashMap, HashMapExt};
use roaring::RoaringBitmap;

use super::{
    Adjacency, Atom, Effect, INTERNET, Item, Kind, Literals, Marks, Postured, Program, Scope, Via,
    sorted,
};
use crate::policy::{
    Acl, AclDestination, AppCapabilities, Grant, Policy, PortRange, Ports, RawJson, Selector,
    SelectorId,
};
use crate::ranges::IpRanges;
use crate::sources::{SourceCache, SourceKey, SourceKeyId, SourceKeys};
use crate::view::Capabilities;

pub(super) struct Builder<'a> {
    policy: &'a Policy,
    kinds: Vec<Kind>,
    keys: SourceKeys,
    items: Vec<Item>,
    destinations: Vec<Atom>,
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
    postured_known: HashMap<(Atom, Arc<str>), Atom>,
    /// From sources to numbers of `postured`.
    postured_by: Vec<(Atom, u32)>,
    postured_everybody: Vec<u32>,
    /// Atoms that stand for several sources, by those.
    wide_known: HashMap<Vec<Atom>, Atom>,
    widened: Vec<(Atom, Atom)>,
    /// Keys of rules with one source, by its atom: most rules have but one.
    single_keys: Vec<Option<SourceKeyId>>,
}

/// A rule as written: an entry of `grants`, or one destination of an entry of `acls`.
struct Rule<'a> {
    /// Atoms of its sources, sorted.
    src: &'a [Atom],
    /// The same.
    key: SourceKeyId,
    dst: &'a [Atom],
    ip: &'a [(Option<u8>, &'a Ports)],
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
    pub(super) fn new(policy: &'a Policy) -> Self {
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
        }
    }

    pub(super) fn build(mut self) -> Program {
        self.add_rules();
        let atom_count = self.atom_count as usize;
        self.edges = sorted(self.edges);
        let reaches = Adjacency::new(atom_count, self.edges.iter().copied());
        let reached_by = reaches.reversed(atom_count);
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
        let keys_of = self.keys_of(atom_count);
        let destinations_by_key = self.destinations_by_key();
        let keys_of_everybody =
            self.keys.ids().filter(|id| self.keys.get(*id).is_everybody).collect();
        let companions = self.companions();
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
            postured_by: Adjacency::new(atom_count, sorted(self.postured_by).into_iter()),
            postured_everybody: self.postured_everybody,
            widened: Adjacency::new(atom_count, sorted(self.widened).into_iter()),
            wides: self.wide_known,
            keys_of,
            destinations_by_key,
            keys_of_everybody,
            companions,
            kinds: self.kinds,
            stamps: AtomicU64::new(1),
        }
    }

    fn keys_of(&self, atom_count: usize) -> Adjacency {
        let keys = self.keys.ids();
        let parts = keys.flat_map(|id| self.keys.get(id).atoms.iter().map(move |atom| (*atom, id)));
        Adjacency::new(atom_count, parts)
    }

    fn destinations_by_key(&self) -> Adjacency {
        let ways = self.items.iter().flat_map(|item| {
            let (own, routers) = match item.scope {
                Scope::Tailnet => (item.destinations.clone(), None),
                Scope::SelfNodes => (0..0, None),
                Scope::Via(via) => (0..0, Some(self.vias[via as usize].routers)),
            };
            let own = own.map(|place| self.destinations[place as usize]);
            own.chain(routers).map(|to| (item.sources, to))
        });
        Adjacency::new(self.keys.len(), ways)
    }

    fn companions(&self) -> RoaringBitmap {
        let is_companion = |item: &&Item| matches!(item.effect, Effect::Companion(_));
        let items = self.items.iter().filter(is_companion);
        items
            .flat_map(|item| item.destinations.clone())
            .map(|place| self.destinations[place as usize])
            .collect()
    }

    /// All grants in the order of the text, then all acls.
    fn add_rules(&mut self) {
        let policy = self.policy;
        if policy.allows_all() {
            return self.add_implicit_rule();
        }
        for grant in policy.grants.iter().flatten() {
            self.add_grant(grant);
        }
        let acls = || policy.acls.iter().flatten();
        let count = acls().map(|acl| acl.dst.len()).sum();
        self.items.reserve(count);
        self.destinations.reserve(count);
        self.edges.reserve(count);
        for acl in acls() {
            self.add_acl(acl);
        }
    }

    fn add_grant(&mut self, grant: &Grant) {
        if grant.src.is_empty() || grant.dst.is_empty() {
            return;
        }
        let src = self.sources(&grant.src, &grant.src_posture);
        let key = self.key(&src);
        let dst: Vec<Atom> = grant.dst.iter().map(|selector| selector.0).collect();
        let ip: Vec<_> = grant.ip.iter().map(|ip| (ip.proto, &ip.ports)).collect();
        let (src, dst, ip) = (&src, &dst, &ip);
        self.add_rule(&Rule { src, key, dst, ip, app: &grant.app, via: &grant.via });
    }

    /// Adds an entry of `acls`: `autogroup:self` comes last, unless all its destinations are autogroups.
    fn add_acl(&mut self, acl: &Acl) {
        if acl.src.is_empty() || acl.dst.is_empty() {
            return;
        }
        let src = self.sources(&acl.src, &acl.src_posture);
        let key = self.key(&src);
        let selector = |dst: &AclDestination| self.policy.selector(dst.selector);
        let has_others = acl.dst.iter().any(|dst| !is_autogroup(selector(dst)));
        let policy = self.policy;
        let is_late = |dst: &&AclDestination| {
            has_others && matches!(policy.selector(dst.selector), Selector::SelfNodes)
        };
        let early = acl.dst.iter().filter(|dst| !is_late(dst));
        for destination in early.chain(acl.dst.iter().filter(is_late)) {
            self.add_rule(&Rule {
                src: &src,
                key,
                dst: &[destination.selector.0],
                ip: &[(acl.proto, &destination.ports)],
                app: &Vec::new(),
                via: &[],
            });
        }
    }

    /// `* -> *:*`, of a policy that says nothing. `*` may have no atom then.
    fn add_implicit_rule(&mut self) {
        self.everybody =
            Marks { reaches_everybody: true, reaches_internet: true, ..Marks::default() };
        let any = self.any.unwrap_or_else(|| self.new_atom());
        self.any = Some(any);
        let sources = self.keys.intern(SourceKey::everybody());
        let effect = Effect::Ports { proto: None, ports: Ports::One(PortRange::ALL) };
        self.add_item(sources, &[any], effect, Scope::Tailnet);
    }

    fn new_atom(&mut self) -> Atom {
        let atom = self.atom_count;
        self.atom_count += 1;
        self.marks.push(Marks::default());
        atom
    }

    fn add_rule(&mut self, rule: &Rule<'_>) {
        if !rule.via.is_empty() {
            return self.add_via(rule);
        }
        let is_own = |atom: &Atom| self.kinds[*atom as usize] == Kind::SelfNodes;
        let Some(own) = rule.dst.iter().copied().find(is_own) else {
            return self.add_tailnet_rule(rule, rule.dst);
        };
        let dst: Vec<Atom> = rule.dst.iter().copied().filter(|atom| *atom != own).collect();
        if !dst.is_empty() {
            self.add_tailnet_rule(rule, &dst);
        }
        self.mark_sources(rule.src, |marks| marks.reaches_self = true);
        self.add_items(rule, &[own], Scope::SelfNodes);
    }

    fn add_tailnet_rule(&mut self, rule: &Rule<'_>, dst: &[Atom]) {
        self.add_edges(rule.src, dst);
        self.add_items(rule, dst, Scope::Tailnet);
    }

    /// The atoms of a rule's sources, sorted: its selectors, or for each selector and posture one of those who meet it.
    fn sources(&mut self, src: &[SelectorId], postures: &[Arc<str>]) -> Vec<Atom> {
        let selectors = src.iter().map(|selector| selector.0);
        let mut atoms: Vec<Atom> = if postures.is_empty() {
            selectors.collect()
        } else {
            selectors
                .flat_map(|source| postures.iter().map(move |posture| (source, posture)))
                .map(|(source, posture)| self.postured(source, posture))
                .collect()
        };
        atoms.sort_unstable();
        atoms.dedup();
        atoms
    }

    fn postured(&mut self, source: Atom, posture: &Arc<str>) -> Atom {
        let known = (source, posture.clone());
        if let Some(atom) = self.postured_known.get(&known) {
            return *atom;
        }
        let atom = self.new_atom();
        let number = u32::try_from(self.postured.len()).expect("invariant: texts are bounded");
        if self.is_everybody(source) {
            self.postured_everybody.push(number);
        } else {
            self.postured_by.push((source, number));
        }
        self.postured.push(Postured { atom, source, posture: posture.clone() });
        self.postured_known.insert(known, atom);
        atom
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
        let has_addresses = dst.iter().any(|atom| match self.kinds[*atom as usize] {
            Kind::Literal(_) | Kind::Internet => true,
            Kind::Identity | Kind::Everybody | Kind::SelfNodes => false,
        });
        let covers_by_name = has_addresses && self.union(dst).covers(&INTERNET);
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
        let wide = if dst.len() > 1 { self.widen(src) } else { None };
        let named: &[Atom] = wide.as_ref().map_or(src, std::slice::from_ref);
        for to in dst.iter().copied().chain(covers_internet.then_some(self.exit)) {
            if self.is_everybody(to) {
                continue;
            }
            self.marks[to as usize].reached_by_everybody |= is_from_everybody;
            for from in named {
                if !self.is_everybody(*from) {
                    self.edges.push((*from, to));
                }
            }
        }
    }

    /// The atom that edges of a rule start at which has several sources and several destinations: the product of both
    /// lists has no bound in the length of the text. `None` if it has one source.
    fn widen(&mut self, src: &[Atom]) -> Option<Atom> {
        let named: Vec<Atom> =
            src.iter().copied().filter(|atom| !self.is_everybody(*atom)).collect();
        if named.len() < 2 {
            return None;
        }
        if let Some(wide) = self.wide_known.get(&named) {
            return Some(*wide);
        }
        let wide = self.new_atom();
        self.widened.extend(named.iter().map(|atom| (*atom, wide)));
        self.wide_known.insert(named, wide);
        Some(wide)
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
    fn add_items(&mut self, rule: &Rule<'_>, dst: &[Atom], scope: Scope) {
        for (proto, ports) in rule.ip {
            let effect = Effect::Ports { proto: *proto, ports: (*ports).clone() };
            self.add_item(rule.key, dst, effect, scope);
        }
        if rule.app.is_empty() {
            return;
        }
        let effect = Effect::Capabilities(Arc::new(capabilities(rule.app)));
        self.add_item(rule.key, dst, effect, scope);
        for (capability, companion) in COMPANIONS {
            if rule.app.iter().any(|(name, _)| **name == *capability) {
                let companion: Capabilities = [(Arc::from(companion), None)].into_iter().collect();
                let sources = self.keys.intern(SourceKey::of_destinations(dst, self.policy));
                self.add_item(sources, rule.src, Effect::Companion(Arc::new(companion)), scope);
            }
        }
    }

    fn add_item(
        &mut self,
        sources: SourceKeyId,
        destinations: &[Atom],
        effect: Effect,
        scope: Scope,
    ) {
        let count = |len| u32::try_from(len).expect("invariant: texts are bounded");
        let start = count(self.destinations.len());
        self.destinations.extend_from_slice(destinations);
        if scope != Scope::Tailnet {
            self.special_items.push(count(self.items.len()));
        }
        let destinations = start..count(self.destinations.len());
        self.items.push(Item { sources, destinations, effect, scope });
    }

    /// A grant by way of routers: its rules are theirs alone, and of its capabilities nobody is told.
    fn add_via(&mut self, rule: &Rule<'_>) {
        let src = rule.src;
        let number = u32::try_from(self.vias.len()).expect("invariant: texts are bounded");
        let routers = self.new_atom();
        self.vias.push(Via {
            sources: src.iter().copied().filter(|atom| !self.is_everybody(*atom)).collect(),
            from_everybody: src.iter().any(|atom| self.is_everybody(*atom)),
            tags: rule.via.iter().map(|tag| tag.0).collect(),
            destinations: rule.dst.to_vec(),
            routers,
        });
        let via = &self.vias[number as usize];
        self.marks[routers as usize].reached_by_everybody = via.from_everybody;
        self.edges.extend(via.sources.iter().map(|from| (*from, routers)));
        for (proto, ports) in rule.ip {
            let effect = Effect::Ports { proto: *proto, ports: (*ports).clone() };
            self.add_item(rule.key, rule.dst, effect, Scope::Via(number));
        }
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
fn items_by_atom(atom_count: usize, items: &[Item], destinations: &[Atom]) -> Vec<Vec<(u32, u32)>> {
    let mut index = vec![Vec::new(); atom_count];
    for (number, item) in (0..).zip(items) {
        if item.scope == Scope::Tailnet {
            for place in item.destinations.clone() {
                index[destinations[place as usize] as usize].push((number, place));
            }
        }
    }
    index
}
