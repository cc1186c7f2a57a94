//! What each rule is to a question.

use std::collections::HashMap;

use ipnet::IpNet;
use mesh_model::NodeId;
use roaring::RoaringBitmap;

use super::{AllowingRule, Explanation, NearMiss, Party, Question, Verdict};
use crate::asked::Asked;
use crate::facts::NodeFacts;
use crate::policy::{PortRange, Selector, SelectorId};
use crate::program::INTERNET;
use crate::ranges::IpRanges;
use crate::rules::{RulePlace, WrittenRule, opens, ports_text, protocol_name};

/// How many rules of a kind an explanation lists; of the rest only the number is told.
const RULES_LISTED_MAX: usize = 20;

/// Stands for a side that is no node among the numbers of nodes.
const NO_NODE: u32 = u32::MAX;

/// One side of a question, worked out.
#[derive(Debug)]
struct Side {
    text: String,
    nodes: RoaringBitmap,
    addresses: IpRanges,
}

impl Side {
    fn of(asked: &Asked<'_>, party: &Party) -> Self {
        match party {
            Party::Node(id) => {
                let node = asked.compiled.node(*id);
                let nodes: RoaringBitmap = node.iter().map(|node| node.id.0).collect();
                Self {
                    text: node.map_or_else(
                        || format!("node {}", id.0),
                        |node| asked.compiled.describe(node),
                    ),
                    addresses: asked.addresses_of(&nodes),
                    nodes,
                }
            }
            Party::Selector(selector) => {
                let id = asked.id(selector);
                Self {
                    text: selector.to_string(),
                    nodes: asked.nodes(id),
                    addresses: asked.addresses(id),
                }
            }
        }
    }

    /// What a source or a destination is counted by: nodes, or the addresses as one.
    fn units(&self) -> RoaringBitmap {
        if self.nodes.is_empty() && !self.addresses.is_empty() {
            [NO_NODE].into_iter().collect()
        } else {
            self.nodes.clone()
        }
    }

    /// The units of these that lie among some addresses.
    fn units_in(&self, asked: &Asked<'_>, addresses: &IpRanges) -> RoaringBitmap {
        if self.nodes.is_empty() {
            let is_hit = addresses.intersects(&self.addresses);
            return is_hit.then_some(NO_NODE).into_iter().collect();
        }
        let is_in = |id: &u32| {
            let node = asked.compiled.node(NodeId(*id));
            node.is_some_and(|node| node.addresses().any(|address| addresses.contains(address)))
        };
        self.nodes.iter().filter(is_in).collect()
    }
}

/// What a rule is to a question.
enum Judged {
    /// It has nothing to do with it.
    Unrelated,
    Miss(Nearness, String),
    /// Which sources it lets through to which destinations.
    Allows(Box<AllowingRule>, Vec<(RoaringBitmap, RoaringBitmap)>),
}

/// How near a miss is, the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Nearness {
    Posture,
    Ports,
    Router,
    SelfNodes,
    Source,
}

/// Goes through the rules for one question.
pub(super) struct Explainer<'a> {
    asked: &'a Asked<'a>,
    question: &'a Question,
    src: Side,
    dst: Side,
    /// The destination is no node, so routers carry what is sent to it.
    is_routed: bool,
    /// Nodes with an active subnet route to the destination.
    has_router: bool,
    /// The destination is a part of the Internet, and there is an exit node.
    has_exit_node: bool,
    from: HashMap<SelectorId, RoaringBitmap>,
    to: HashMap<SelectorId, RoaringBitmap>,
}

impl<'a> Explainer<'a> {
    pub(super) fn new(asked: &'a Asked<'a>, question: &'a Question) -> Self {
        let (src, dst) = (Side::of(asked, &question.src), Side::of(asked, &question.dst));
        let has_route =
            |node: &NodeFacts| node.subnet_routes().any(|route| dst.addresses.overlaps(&route));
        Self {
            is_routed: dst.nodes.is_empty() && !dst.addresses.is_empty(),
            has_router: asked.compiled.nodes().any(has_route),
            has_exit_node: INTERNET.covers(&dst.addresses)
                && asked.compiled.nodes().any(NodeFacts::is_exit_node),
            asked,
            question,
            src,
            dst,
            from: HashMap::new(),
            to: HashMap::new(),
        }
    }

    pub(super) fn explain(mut self) -> Explanation {
        let (mut allowed_by, mut misses, mut let_through) = (Vec::new(), Vec::new(), Vec::new());
        let asked = self.asked;
        for rule in asked.rules() {
            match self.judge(rule) {
                Judged::Unrelated => {}
                Judged::Miss(nearness, why) => {
                    misses.push((nearness, NearMiss { place: rule.place(), why }));
                }
                Judged::Allows(rule, pairs) => {
                    allowed_by.push(*rule);
                    let_through.extend(pairs);
                }
            }
        }
        let verdict = self.verdict(&let_through);
        if verdict == Verdict::Allowed {
            misses.clear();
        }
        misses.sort_by_key(|(nearness, _)| *nearness);
        let more_allow = allowed_by.len().saturating_sub(RULES_LISTED_MAX);
        let more_misses = misses.len().saturating_sub(RULES_LISTED_MAX);
        allowed_by.truncate(RULES_LISTED_MAX);
        Explanation {
            question: self.question_text(),
            verdict,
            allowed_by,
            more_allow,
            near_misses: misses.into_iter().map(|(_, miss)| miss).take(RULES_LISTED_MAX).collect(),
            more_misses,
            notes: self.notes(verdict),
        }
    }

    fn question_text(&self) -> String {
        let port = self.question.port.map(|port| format!(":{port}")).unwrap_or_default();
        let over = self.question.proto.map(|proto| format!(" over {}", protocol_name(proto)));
        format!("{} -> {}{port}{}", self.src.text, self.dst.text, over.unwrap_or_default())
    }

    fn judge(&mut self, rule: WrittenRule<'_>) -> Judged {
        let sources = self.matching_sources(rule);
        if !sources.is_empty()
            && let Some(why) = self.why_not_own(rule)
        {
            return Judged::Miss(Nearness::SelfNodes, why);
        }
        let destinations = self.matching_destinations(rule, &sources);
        if destinations.is_empty() {
            return Judged::Unrelated;
        }
        if sources.is_empty() {
            let why = format!("its sources do not hold {}", self.src.text);
            return Judged::Miss(Nearness::Source, why);
        }
        let allowed = self.compliant_sources(rule, &sources);
        if allowed.is_empty() {
            let postures: Vec<&str> = rule.postures().iter().map(|name| &**name).collect();
            let why = format!("{} does not meet {}", self.src.text, postures.join(" or "));
            return Judged::Miss(Nearness::Posture, why);
        }
        let ports = self.open_ports(rule, &destinations);
        if ports.is_empty() {
            return Judged::Miss(Nearness::Ports, why_not_ports(rule, &destinations));
        }
        if let Some(why) = self.why_not_carried(rule, &destinations) {
            return Judged::Miss(Nearness::Router, why);
        }
        let text = |selector: SelectorId| self.asked.selector(selector).to_string();
        let open: Vec<&(usize, SelectorId, RoaringBitmap)> =
            destinations.iter().filter(|(number, _, _)| self.is_open(rule, *number)).collect();
        let pairs =
            open.iter().flat_map(|(_, selector, units)| self.pairs(*selector, &allowed, units));
        let pairs = pairs.collect();
        let allowing = AllowingRule {
            place: rule.place(),
            sources: sources.iter().map(|(selector, _)| text(*selector)).collect(),
            destinations: each_once(open.iter().map(|(_, selector, _)| text(*selector))),
            ports,
            via: rule.via().iter().map(|tag| text(*tag)).collect(),
        };
        Judged::Allows(Box::new(allowing), pairs)
    }

    /// The rule's sources that hold the source, and which part of it.
    fn matching_sources(&mut self, rule: WrittenRule<'_>) -> Vec<(SelectorId, RoaringBitmap)> {
        let (asked, src) = (self.asked, &self.src);
        let from = &mut self.from;
        let units = |selector: &SelectorId| {
            let units = from
                .entry(*selector)
                .or_insert_with(|| src.units_in(asked, &asked.source_addresses(*selector)));
            (*selector, units.clone())
        };
        rule.sources().iter().map(units).filter(|(_, units)| !units.is_empty()).collect()
    }

    /// The rule's destinations that hold the destination, with their numbers, and which part of it.
    fn matching_destinations(
        &mut self,
        rule: WrittenRule<'_>,
        sources: &[(SelectorId, RoaringBitmap)],
    ) -> Vec<(usize, SelectorId, RoaringBitmap)> {
        let (asked, dst) = (self.asked, &self.dst);
        let mut matching = Vec::new();
        for (number, selector) in rule.destinations().enumerate() {
            let units = if *asked.selector(selector) == Selector::SelfNodes {
                let own = |units: &RoaringBitmap| self.own_nodes(units);
                sources.iter().fold(RoaringBitmap::new(), |all, (_, units)| all | own(units))
            } else {
                let known = self.to.entry(selector);
                known.or_insert_with(|| dst.units_in(asked, &asked.addresses(selector))).clone()
            };
            if !units.is_empty() {
                matching.push((number, selector, units));
            }
        }
        matching
    }

    /// The destination's nodes that belong to the users of some source nodes.
    fn own_nodes(&self, sources: &RoaringBitmap) -> RoaringBitmap {
        let compiled = self.asked.compiled;
        let users = sources.iter().filter_map(|id| compiled.node(NodeId(id))?.user());
        let own = users.filter_map(|user| compiled.nodes_of_user(user));
        own.fold(RoaringBitmap::new(), |all, own| all | own) & &self.dst.nodes
    }

    /// Why `autogroup:self`, which is all that the rule leads to, does not hold the destination.
    fn why_not_own(&self, rule: WrittenRule<'_>) -> Option<String> {
        let asked = self.asked;
        let mut destinations = rule.destinations();
        let is_self = |id: SelectorId| *asked.selector(id) == Selector::SelfNodes;
        if self.dst.nodes.is_empty() || !destinations.all(is_self) {
            return None;
        }
        if !self.own_nodes(&self.src.nodes).is_empty() {
            return None;
        }
        let is_tagged =
            |id| asked.compiled.node(NodeId(id)).is_some_and(|node| node.user().is_none());
        let why = if self.dst.nodes.iter().all(is_tagged) {
            "it is tagged, so it is nobody's own"
        } else if self.src.nodes.iter().all(is_tagged) {
            "the source is tagged, so it has no nodes of its own"
        } else {
            "it belongs to another user"
        };
        Some(format!("autogroup:self does not hold {}: {why}", self.dst.text))
    }

    /// The part of the source that the rule lets through.
    fn compliant_sources(
        &self,
        rule: WrittenRule<'_>,
        sources: &[(SelectorId, RoaringBitmap)],
    ) -> RoaringBitmap {
        let units = sources.iter().fold(RoaringBitmap::new(), |all, (_, units)| all | units);
        self.asked.compliant(rule, units)
    }

    fn is_open(&self, rule: WrittenRule<'_>, destination: usize) -> bool {
        !self.open_at(rule, destination).is_empty()
    }

    /// What the rule opens of what is asked about.
    fn open_at(&self, rule: WrittenRule<'_>, destination: usize) -> Vec<String> {
        let Question { port, proto, .. } = *self.question;
        let is_open = |range: &&PortRange| port.is_none_or(|port| range.contains(port));
        let opened =
            rule.ports(destination).into_iter().filter(|(opened, _)| opens(*opened, proto));
        opened
            .flat_map(|(proto, ranges)| {
                ranges.iter().filter(is_open).map(move |range| ports_text(proto, *range))
            })
            .collect()
    }

    fn open_ports(
        &self,
        rule: WrittenRule<'_>,
        destinations: &[(usize, SelectorId, RoaringBitmap)],
    ) -> Vec<String> {
        each_once(destinations.iter().flat_map(|(number, _, _)| self.open_at(rule, *number)))
    }

    /// Why no router carries what the rule allows; `None` if there is one, or none is needed.
    fn why_not_carried(
        &self,
        rule: WrittenRule<'_>,
        destinations: &[(usize, SelectorId, RoaringBitmap)],
    ) -> Option<String> {
        let asked = self.asked;
        let covers_internet = || {
            let covers = |(_, id, _): &(usize, SelectorId, RoaringBitmap)| {
                asked.addresses(*id).covers(&INTERNET)
            };
            destinations.iter().any(covers)
        };
        if rule.via().is_empty() {
            if !self.is_routed || self.has_router {
                return None;
            }
            if !self.has_exit_node {
                return Some(format!("no active route leads to {}", self.dst.text));
            }
            let why = "exit nodes are only for rules that cover the whole Internet";
            return (!covers_internet()).then(|| why.to_owned());
        }
        let routers = asked.compiled.nodes_of_any(rule.via());
        let mut routers = routers.iter().filter_map(|id| asked.compiled.node(NodeId(id)));
        let is_carrier = |node: &NodeFacts| {
            let has_route = node.subnet_routes().any(|route| self.dst.addresses.overlaps(&route));
            has_route
                || node.is_exit_node() && INTERNET.covers(&self.dst.addresses) && covers_internet()
        };
        let tags: Vec<String> =
            rule.via().iter().map(|tag| asked.selector(*tag).to_string()).collect();
        (!routers.any(is_carrier)).then(|| {
            format!("no router of {} has an active route to {}", tags.join(", "), self.dst.text)
        })
    }

    /// Sources and destinations that a destination of a rule brings together.
    fn pairs(
        &self,
        selector: SelectorId,
        sources: &RoaringBitmap,
        destinations: &RoaringBitmap,
    ) -> Vec<(RoaringBitmap, RoaringBitmap)> {
        if *self.asked.selector(selector) != Selector::SelfNodes {
            return vec![(sources.clone(), destinations.clone())];
        }
        let pair = |id: u32| {
            let source: RoaringBitmap = [id].into_iter().collect();
            let own = self.own_nodes(&source) & destinations;
            (source, own)
        };
        sources.iter().map(pair).collect()
    }

    fn verdict(&self, let_through: &[(RoaringBitmap, RoaringBitmap)]) -> Verdict {
        let (from, to) = (self.src.units(), self.dst.units());
        let of = from.len() * to.len();
        let covers_all = |(sources, destinations): &(RoaringBitmap, RoaringBitmap)| {
            from.is_subset(sources) && to.is_subset(destinations)
        };
        if of > 0 && let_through.iter().any(covers_all) {
            return Verdict::Allowed;
        }
        let mut reached: HashMap<u32, RoaringBitmap> = HashMap::new();
        for (sources, destinations) in let_through {
            for unit in destinations {
                *reached.entry(unit).or_default() |= sources;
            }
        }
        match reached.values().map(RoaringBitmap::len).sum() {
            0 => Verdict::Refused,
            pairs if pairs == of => Verdict::Allowed,
            pairs => Verdict::Partly { pairs, of },
        }
    }

    fn notes(&self, verdict: Verdict) -> Vec<String> {
        let mut notes = Vec::new();
        for side in [&self.src, &self.dst] {
            if side.addresses.is_empty() {
                notes.push(format!("{} stands for no address", side.text));
            }
        }
        if self.is_routed && !self.has_router && !self.has_exit_node {
            notes.push(format!(
                "no node has this address, and no active route leads to {}: a route must be offered by a node and approved",
                self.dst.text
            ));
        }
        if let (Party::Node(src), Party::Node(dst)) = (&self.question.src, &self.question.dst) {
            notes.extend(self.peering(*src, *dst, verdict));
        }
        notes
    }

    /// Whether two nodes are peers, where that does not go without saying.
    fn peering(&self, src: NodeId, dst: NodeId, verdict: Verdict) -> Option<String> {
        let compiled = self.asked.compiled;
        let (src, dst) = (compiled.node(src)?, compiled.node(dst)?);
        if src.id == dst.id {
            return Some("it is the same node, to which policy does not apply".to_owned());
        }
        if !compiled.sees(src.id, dst.id) {
            return Some("they are not peers: neither knows of the other".to_owned());
        }
        if verdict == Verdict::Allowed {
            return None;
        }
        let forth = self.visible_by(src, dst);
        let back = || self.visible_by(dst, src);
        Some(match (forth, verdict) {
            (Some(rule), _) => format!("they are peers by {rule}"),
            (None, _) => match back() {
                Some(rule) => {
                    format!("they are peers only by {rule}, which is for the other direction")
                }
                None => "they are peers".to_owned(),
            },
        })
    }

    /// The first rule by which one node is a source and another a destination, whatever the ports.
    fn visible_by(&self, from: &NodeFacts, to: &NodeFacts) -> Option<RulePlace> {
        let asked = self.asked;
        let reach = |node: &NodeFacts| -> IpRanges {
            node.addresses().map(IpNet::from).chain(node.subnet_routes()).collect()
        };
        let (source, destination) = (reach(from), reach(to));
        let is_own = from.user().is_some() && from.user() == to.user();
        let leads = |rule: &WrittenRule<'_>| {
            let mut sources = rule.sources().iter();
            let is_source = sources.any(|id| asked.source_addresses(*id).intersects(&source))
                && asked.compliant(*rule, [from.id.0].into_iter().collect()).contains(from.id.0);
            let is_destination = |id: SelectorId| {
                let addresses = asked.addresses(id);
                addresses.intersects(&destination)
                    || to.is_exit_node() && addresses.covers(&INTERNET)
                    || is_own && *asked.selector(id) == Selector::SelfNodes
            };
            let is_router = rule.via().is_empty() || asked.compiled.selects_any(rule.via(), to.id);
            is_source && is_router && rule.destinations().any(is_destination)
        };
        asked.rules().into_iter().find(leads).map(WrittenRule::place)
    }
}

/// Texts in the order of their first.
fn each_once(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for text in texts {
        if !kept.contains(&text) {
            kept.push(text);
        }
    }
    kept
}

/// What a rule opens instead of what is asked about.
fn why_not_ports<'a>(
    rule: WrittenRule<'a>,
    destinations: &[(usize, SelectorId, RoaringBitmap)],
) -> String {
    let opened = destinations.iter().flat_map(|(number, _, _)| rule.ports(*number));
    let texts = |(proto, ranges): (Option<u8>, &'a [PortRange])| {
        ranges.iter().map(move |range| ports_text(proto, *range))
    };
    let opened = each_once(opened.flat_map(texts));
    if opened.is_empty() {
        let names: Vec<&str> = rule.capabilities().map(|name| &**name).collect();
        return format!("it opens no ports, only {}", names.join(", "));
    }
    format!("it opens only {}", opened.join(", "))
}
