//! Sections 3, 4 and 6.1 to 6.7: the rules of the policy as they stand on one node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::{NodeId, UserId};
use mesh_policy::policy::{Acl, AclDestination, AppCapabilities, Grant, PortRange};
use mesh_policy::{Capabilities, IpRange, IpRanges, NodeFacts, Selector, SelectorId};

use super::Naive;
use super::selectors::{hits, internet, texts};

/// A rule on a node, before it is merged and reduced.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) src: Sources,
    pub(super) target: Target,
    pub(super) origin: Origin,
    /// On a companion of a rule with a posture or for `autogroup:self`: it is for exactly these nodes, and no subnets.
    pub(super) only_for: Option<BTreeSet<NodeId>>,
}

/// Where a rule is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It is the same on all nodes.
    Global,
    /// It is about the nodes of this user: `autogroup:self`.
    SelfOf(UserId),
    /// It tells sources of a grant who may use them (6.5); it is the same on all nodes.
    Companion,
    /// It is about what the node routes for a grant with `via`.
    Via,
    /// As [`Self::Via`], of a grant with `app` alone: it carries routes, and is in no packet filter.
    ViaApp,
}

/// Section 6.2: where a rule lets packets come from.
#[derive(Debug, Clone, Default)]
pub(super) struct Sources {
    pub(super) texts: BTreeSet<Arc<str>>,
    pub(super) set: IpRanges,
    /// With a posture, and for `autogroup:self`: exactly these nodes, and no subnets.
    pub(super) nodes: Option<BTreeSet<NodeId>>,
}

/// What a rule lets through.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Ports { entries: Vec<Entry>, proto: Option<u8> },
    Caps(Vec<Caps>),
}

/// Section 6.3: an entry of `DstPorts`.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) text: Arc<str>,
    pub(super) set: IpRanges,
    pub(super) ports: PortRange,
}

/// Section 6.5: an entry of `CapGrant`.
#[derive(Debug, Clone)]
pub(super) struct Caps {
    pub(super) dsts: Vec<IpNet>,
    pub(super) cap_map: Arc<Capabilities>,
}

/// An acl destination or a grant.
pub(super) struct Part<'a> {
    pub(super) src: &'a [SelectorId],
    pub(super) src_posture: &'a [Arc<str>],
    pub(super) dst: Vec<SelectorId>,
    pub(super) ip: Vec<(Option<u8>, &'a [PortRange])>,
    pub(super) app: &'a AppCapabilities,
}

impl Rule {
    pub(super) fn new(src: &Sources, target: Target, origin: Origin) -> Self {
        Self { src: src.clone(), target, origin, only_for: None }
    }

    /// Section 7: whether it lets packets go to a node, or to a subnet behind it.
    pub(super) fn leads_to(&self, node: &NodeFacts) -> bool {
        match &self.only_for {
            Some(nodes) => nodes.contains(&node.id),
            None => self.target.hits(node),
        }
    }

    /// Section 7: whether it lets packets go to a node, or through it.
    pub(super) fn serves(&self, node: &NodeFacts) -> bool {
        self.leads_to(node) || node.is_exit_node() && self.leads_out()
    }

    /// Section 8.3: whether it lets packets go to a part of a subnet.
    pub(super) fn leads_into(&self, route: &IpNet) -> bool {
        self.only_for.is_none() && self.target.overlaps(route)
    }

    /// Section 8.3: whether it lets packets go to all of the Internet. Companions let nothing go anywhere.
    pub(super) fn leads_out(&self) -> bool {
        self.origin != Origin::Companion && self.target.covers_internet()
    }
}

impl Sources {
    /// Section 7: whether a node may be the source, for itself or for a subnet behind it.
    pub(super) fn hits(&self, node: &NodeFacts) -> bool {
        match &self.nodes {
            Some(nodes) => nodes.contains(&node.id),
            None => hits(&self.set, node),
        }
    }

    /// Section 8.3: whether packets may come from a subnet.
    pub(super) fn overlaps(&self, route: &IpNet) -> bool {
        self.nodes.is_none() && self.set.overlaps(route)
    }

    fn of_set(set: IpRanges) -> Self {
        Self { texts: texts(&set).collect(), set, nodes: None }
    }
}

impl Target {
    /// The sets of addresses it lets packets go to.
    pub(super) fn sets(&self) -> Vec<IpRanges> {
        match self {
            Self::Ports { entries, .. } => entries.iter().map(|entry| entry.set.clone()).collect(),
            Self::Caps(caps) => {
                caps.iter().map(|caps| caps.dsts.iter().copied().collect()).collect()
            }
        }
    }

    /// Without destinations written `*`.
    pub(super) fn without_wildcard(&self) -> Self {
        match self {
            Self::Ports { entries, proto } => {
                let entries = entries.iter().filter(|entry| &*entry.text != "*").cloned().collect();
                Self::Ports { entries, proto: *proto }
            }
            Self::Caps(caps) => {
                let is_wildcard = |caps: &Caps| caps.dsts.iter().any(|dst| dst.prefix_len() == 0);
                Self::Caps(caps.iter().filter(|caps| !is_wildcard(caps)).cloned().collect())
            }
        }
    }

    /// Section 7: whether it holds one of a node's addresses or a part of a subnet behind it.
    pub(super) fn hits(&self, node: &NodeFacts) -> bool {
        self.sets().iter().any(|set| hits(set, node))
    }

    /// Section 8.3: whether it holds a part of a subnet.
    pub(super) fn overlaps(&self, route: &IpNet) -> bool {
        self.sets().iter().any(|set| set.overlaps(route))
    }

    /// Section 8.3: whether all of the Internet is in it.
    pub(super) fn covers_internet(&self) -> bool {
        let mut union = IpRanges::default();
        for set in self.sets() {
            union.extend(&set);
        }
        union.covers(&internet())
    }
}

impl Naive<'_> {
    /// Section 6.1: all rules in order: grants, then acls. Section 1: a policy with neither lets all nodes reach all.
    pub(super) fn rules_of(&self, node: &NodeFacts) -> Vec<Rule> {
        if self.policy.acls.is_none() && self.policy.grants.is_none() {
            return self.implicit_rule();
        }
        let grants = self.policy.grants.iter().flatten();
        let mut rules: Vec<Rule> = grants.flat_map(|grant| self.grant(grant, node)).collect();
        rules.extend(self.policy.acls.iter().flatten().flat_map(|acl| self.acl(acl, node)));
        rules
    }

    /// Section 1: `* -> *:*`.
    pub(super) fn implicit_rule(&self) -> Vec<Rule> {
        let ports = &[PortRange::ALL];
        let entries = self.entries(&Selector::Any, ports);
        let target = Target::Ports { entries, proto: None };
        vec![Rule::new(&self.sources_of(&[&Selector::Any]), target, Origin::Global)]
    }

    /// Section 4, and 6.1 point 2: the part for other destinations, then the part for `autogroup:self`.
    fn grant(&self, grant: &Grant, node: &NodeFacts) -> Vec<Rule> {
        if !grant.via.is_empty() {
            return self.via_rules(grant, node);
        }
        self.part(part_of_grant(grant), node)
    }

    /// Section 3, and 6.1 point 3: one part per destination. Destinations `autogroup:self` come last, unless all are
    /// autogroups.
    fn acl(&self, acl: &Acl, node: &NodeFacts) -> Vec<Rule> {
        self.parts_of_acl(acl).into_iter().flat_map(|part| self.part(part, node)).collect()
    }

    pub(super) fn parts_of_acl<'a>(&self, acl: &'a Acl) -> Vec<Part<'a>> {
        let mut dst: Vec<_> = acl.dst.iter().collect();
        if !dst.iter().all(|dst| is_autogroup(self.policy.selector(dst.selector))) {
            dst.sort_by_key(|dst| *self.policy.selector(dst.selector) == Selector::SelfNodes);
        }
        let part = |dst: &'a AclDestination| Part {
            src: &acl.src,
            src_posture: &acl.src_posture,
            dst: vec![dst.selector],
            ip: vec![(acl.proto, &dst.ports[..])],
            app: const { &Vec::new() },
        };
        dst.into_iter().map(part).collect()
    }

    fn part(&self, part: Part<'_>, node: &NodeFacts) -> Vec<Rule> {
        let (part, is_for_self) = self.split(part);
        let mut rules = Vec::new();
        if !part.dst.is_empty() {
            rules.extend(self.other_part(&part));
        }
        if is_for_self {
            rules.extend(self.self_part(&part, node));
        }
        rules
    }

    /// A part without `autogroup:self`, and whether that was among its destinations. Without sources nothing is.
    pub(super) fn split<'a>(&self, mut part: Part<'a>) -> (Part<'a>, bool) {
        if part.src.is_empty() {
            part.dst.clear();
        }
        let count = part.dst.len();
        part.dst.retain(|dst| *self.policy.selector(*dst) != Selector::SelfNodes);
        let is_for_self = part.dst.len() < count;
        (part, is_for_self)
    }

    /// Section 6.1 point 2: a port rule per `ip` entry, the rule of capabilities, the companions.
    pub(super) fn other_part(&self, part: &Part<'_>) -> Vec<Rule> {
        let src = self.sources(part.src, part.src_posture);
        let selectors: Vec<&Selector> =
            part.dst.iter().map(|dst| self.policy.selector(*dst)).collect();
        let entries = |ports: &[PortRange]| {
            selectors.iter().flat_map(|selector| self.entries(selector, ports)).collect()
        };
        let mut targets = port_targets(&src, part, entries);
        if !part.app.is_empty() {
            let dsts = selectors.iter().map(|selector| self.cap_dsts(selector)).collect();
            targets.push(cap_target(dsts, part.app));
        }
        let rule = |target| Rule::new(&src, target, Origin::Global);
        let mut rules: Vec<Rule> = targets.into_iter().map(rule).collect();
        let reversed = self.reversed_sources(&selectors);
        let prefixes = self.source_prefixes(part, &src);
        let mut companions = companions(part.app, &reversed, &prefixes, Origin::Companion);
        for companion in &mut companions {
            companion.only_for.clone_from(&src.nodes);
        }
        rules.append(&mut companions);
        rules
    }

    /// Section 6.2: the addresses of the sources and their texts.
    pub(super) fn sources(&self, src: &[SelectorId], postures: &[Arc<str>]) -> Sources {
        let selectors: Vec<&Selector> = src.iter().map(|src| self.policy.selector(*src)).collect();
        if postures.is_empty() {
            return self.sources_of(&selectors);
        }
        let meets = |id: &NodeId| self.meets_one_of(postures, self.nodes[id]);
        let nodes: BTreeSet<NodeId> = self.selected(src).into_iter().filter(meets).collect();
        let set = nodes.iter().flat_map(|id| self.nodes[id].addresses()).collect();
        Sources { nodes: Some(nodes), ..Sources::of_set(set) }
    }

    /// Section 6.2, without a posture.
    fn sources_of(&self, selectors: &[&Selector]) -> Sources {
        if selectors.contains(&&Selector::DangerAll) {
            let texts = BTreeSet::from(["*".into()]);
            return Sources { texts, set: IpRanges::all(), nodes: None };
        }
        let mut set = IpRanges::default();
        for selector in selectors {
            set.extend(&self.addresses_of(selector));
        }
        if !selectors.contains(&&Selector::Any) {
            return Sources::of_set(set);
        }
        let per_source = selectors
            .iter()
            .flat_map(|selector| texts(&self.addresses_of(selector)).collect::<Vec<_>>());
        let mut texts: BTreeSet<Arc<str>> = per_source.collect();
        for route in self.all_subnet_routes() {
            texts.insert(route.to_string().into());
            set.extend(&route.into());
        }
        Sources { texts, set, nodes: None }
    }

    /// Section 6.3: the entries of a destination. Addresses of nodes stand alone.
    pub(super) fn entries(&self, selector: &Selector, ports: &[PortRange]) -> Vec<Entry> {
        let sets: Vec<(Arc<str>, IpRanges)> = match self.literal(selector) {
            _ if *selector == Selector::Any => vec![("*".into(), IpRanges::all())],
            Some(literal) => {
                let text = |range: IpRange| {
                    if *selector == Selector::Internet {
                        return format!("{}-{}", range.first, range.last);
                    }
                    range.to_string()
                };
                let ranges = literal.ranges();
                ranges.map(|range| (text(range).into(), range.prefixes().collect())).collect()
            }
            None => {
                let nodes = self.nodes.values();
                let nodes = nodes.filter(|node| self.selector_selects(selector, node));
                let addresses = nodes.flat_map(|node| node.addresses());
                addresses.map(|ip| (ip.to_string().into(), [ip].into_iter().collect())).collect()
            }
        };
        let with_ports = |(text, set): &(Arc<str>, IpRanges)| -> Vec<Entry> {
            let entry =
                |ports: &PortRange| Entry { text: text.clone(), set: set.clone(), ports: *ports };
            ports.iter().map(entry).collect()
        };
        sets.iter().flat_map(with_ports).collect()
    }

    /// Section 6.5: the prefixes of a destination of capabilities.
    fn cap_dsts(&self, selector: &Selector) -> Vec<IpNet> {
        if *selector == Selector::Any {
            return IpRanges::all().prefixes().collect();
        }
        if let Some(literal) = self.literal(selector) {
            return literal.prefixes().collect();
        }
        let nodes = self.nodes.values().filter(|node| self.selector_selects(selector, node));
        nodes.flat_map(|node| node.addresses()).map(IpNet::from).collect()
    }

    /// Section 6.5: the destinations as sources of companion rules.
    fn reversed_sources(&self, selectors: &[&Selector]) -> Sources {
        let mut reversed = Sources::default();
        for selector in selectors {
            let one = self.sources_of(&[selector]);
            reversed.texts.extend(one.texts);
            reversed.set.extend(&one.set);
        }
        reversed
    }

    /// Section 6.5: the sources as destinations of companion rules. Subnets behind nodes are none of them.
    fn source_prefixes(&self, part: &Part<'_>, src: &Sources) -> Vec<IpNet> {
        let selectors = || part.src.iter().map(|src| self.policy.selector(*src));
        if src.nodes.is_some() || selectors().any(|selector| *selector == Selector::DangerAll) {
            return src.set.prefixes().collect();
        }
        let mut set = IpRanges::default();
        for selector in selectors() {
            set.extend(&self.addresses_of(selector));
        }
        set.prefixes().collect()
    }

    /// Section 6.6: on an untagged node, from those nodes of its user that the sources cover, to all of them.
    pub(super) fn self_part(&self, part: &Part<'_>, node: &NodeFacts) -> Vec<Rule> {
        let Some(user) = node.user() else { return Vec::new() };
        let mine: Vec<&NodeFacts> =
            self.nodes.values().copied().filter(|other| other.user() == Some(user)).collect();
        let is_source = |other: &&&NodeFacts| {
            part.src.iter().any(|src| self.selects(*src, other))
                && (part.src_posture.is_empty() || self.meets_one_of(part.src_posture, other))
        };
        let sources: Vec<&NodeFacts> = mine.iter().filter(is_source).copied().collect();
        if sources.is_empty() {
            return Vec::new();
        }
        let addresses = |nodes: &[&NodeFacts]| -> IpRanges {
            nodes.iter().flat_map(|node| node.addresses()).collect()
        };
        let ids: BTreeSet<NodeId> = sources.iter().map(|node| node.id).collect();
        let src = Sources { nodes: Some(ids.clone()), ..Sources::of_set(addresses(&sources)) };
        let entry = |ip: IpAddr, ports: &PortRange| Entry {
            text: ip.to_string().into(),
            set: [ip].into_iter().collect(),
            ports: *ports,
        };
        let entries = |ports: &[PortRange]| {
            let ips = mine.iter().flat_map(|node| node.addresses());
            ips.flat_map(|ip| ports.iter().map(move |ports| entry(ip, ports))).collect()
        };
        let origin = Origin::SelfOf(user);
        let mut targets = port_targets(&src, part, entries);
        if !part.app.is_empty() {
            let dsts = |node: &&NodeFacts| node.addresses().map(IpNet::from).collect();
            targets.push(cap_target(mine.iter().map(dsts).collect(), part.app));
        }
        let rule = |target| Rule::new(&src, target, origin);
        let mut rules: Vec<Rule> = targets.into_iter().map(rule).collect();
        let reversed = Sources::of_set(addresses(&mine));
        let own: Vec<IpNet> =
            sources.iter().flat_map(|node| node.addresses()).map(IpNet::from).collect();
        let mut companions = companions(part.app, &reversed, &own, origin);
        for companion in &mut companions {
            companion.only_for = Some(ids.clone());
        }
        rules.append(&mut companions);
        rules
    }

    /// Section 6.7: on a node that carries traffic for a grant with `via`, the destinations that it has routes to. `*` is
    /// none that a route could be for.
    pub(super) fn via_rules(&self, grant: &Grant, node: &NodeFacts) -> Vec<Rule> {
        if !self.has_tag_of(&grant.via, node) {
            return Vec::new();
        }
        let src = self.sources(&grant.src, &grant.src_posture);
        let rule = |proto: Option<u8>, ports: &[PortRange], origin: Origin| {
            let entries = grant.dst.iter().flat_map(|dst| self.via_entries(*dst, ports, node));
            let target = Target::Ports { entries: entries.collect(), proto };
            Rule::new(&src, target, origin)
        };
        let mut rules: Vec<Rule> =
            grant.ip.iter().map(|ip| rule(ip.proto, &ip.ports, Origin::Via)).collect();
        if grant.ip.is_empty() {
            rules.push(rule(None, &[PortRange::ALL], Origin::ViaApp));
        }
        rules.retain(|rule| !rule.src.set.is_empty() && !rule.target.sets().is_empty());
        rules
    }

    /// Section 6.7: the parts of a destination that a node has routes to.
    fn via_entries(&self, dst: SelectorId, ports: &[PortRange], node: &NodeFacts) -> Vec<Entry> {
        let selector = self.policy.selector(dst);
        let is_routed = |set: &IpRanges| {
            if *selector == Selector::Internet {
                return node.is_exit_node();
            }
            node.subnet_routes().any(|route| set.overlaps(&route))
        };
        if *selector == Selector::Any {
            return Vec::new();
        }
        self.entries(selector, ports).into_iter().filter(|entry| is_routed(&entry.set)).collect()
    }

    /// Section 6.7: whether a node has one of some tags.
    pub(super) fn has_tag_of(&self, tags: &[SelectorId], node: &NodeFacts) -> bool {
        tags.iter().any(|tag| self.selects(*tag, node))
    }

    /// Section 8.4: the addresses that a grant with `via` steers to, but the Internet's and `*`.
    pub(super) fn via_destinations(&self, grant: &Grant) -> IpRanges {
        let mut set = IpRanges::default();
        for selector in grant.dst.iter().map(|dst| self.policy.selector(*dst)) {
            if !matches!(selector, Selector::Any | Selector::Internet) {
                set.extend(&self.addresses_of(selector));
            }
        }
        set
    }
}

/// Section 4: a grant without `via`.
pub(super) fn part_of_grant(grant: &Grant) -> Part<'_> {
    Part {
        src: &grant.src,
        src_posture: &grant.src_posture,
        dst: grant.dst.clone(),
        ip: grant.ip.iter().map(|ip| (ip.proto, &ip.ports[..])).collect(),
        app: &grant.app,
    }
}

/// Sections 6.2 to 6.4: a rule per `ip` entry; nothing without sources or destinations.
fn port_targets(
    src: &Sources,
    part: &Part<'_>,
    entries: impl Fn(&[PortRange]) -> Vec<Entry>,
) -> Vec<Target> {
    if src.set.is_empty() {
        return Vec::new();
    }
    let target = |(proto, ports): &(Option<u8>, &[PortRange])| {
        let entries = entries(ports);
        (!entries.is_empty()).then_some(Target::Ports { entries, proto: *proto })
    };
    part.ip.iter().filter_map(target).collect()
}

/// Section 6.5: an entry per destination with the whole `app` object.
fn cap_target(dsts: Vec<Vec<IpNet>>, app: &AppCapabilities) -> Target {
    let cap_map: Capabilities =
        app.iter().map(|(name, values)| (name.clone(), Some(values.clone()))).collect();
    let cap_map = Arc::new(cap_map);
    Target::Caps(dsts.into_iter().map(|dsts| Caps { dsts, cap_map: cap_map.clone() }).collect())
}

/// Section 6.5: sharers of drives and targets of relays are told who may use them.
fn companions(
    app: &AppCapabilities,
    reversed: &Sources,
    dsts: &[IpNet],
    origin: Origin,
) -> Vec<Rule> {
    let pairs = [
        ("tailscale.com/cap/drive", "tailscale.com/cap/drive-sharer"),
        ("tailscale.com/cap/relay", "tailscale.com/cap/relay-target"),
    ];
    let is_granted = |wanted: &str| app.iter().any(|(name, _)| &**name == wanted);
    let rule = |name: &str| {
        let cap_map = Arc::new(BTreeMap::from([(name.into(), None)]));
        let target = Target::Caps(vec![Caps { dsts: dsts.to_vec(), cap_map }]);
        Rule::new(reversed, target, origin)
    };
    pairs
        .iter()
        .filter(|(name, _)| is_granted(name))
        .map(|(_, companion)| rule(companion))
        .collect()
}

fn is_autogroup(selector: &Selector) -> bool {
    matches!(
        selector,
        Selector::Member
            | Selector::Tagged
            | Selector::SelfNodes
            | Selector::Internet
            | Selector::DangerAll
            | Selector::Admin
            | Selector::Owner
    )
}
