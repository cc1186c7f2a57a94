//! Section 7 alone, for tailnets that are too large to be looked at view by view.
//!
//! The rules that are the same on all nodes are evaluated once: the sources and the destinations of each are looked up
//! once per list of selectors, and the rule then marks every pair of the two. Which nodes a list selects, and what stands
//! on a node alone, is asked of the same functions as views are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::NodeId;
use mesh_policy::policy::PortRange;
use mesh_policy::{NodeFacts, Policy, SelectorId, UserFacts};

use super::Naive;
use super::routes::lets_in;
use super::rules::{Origin, Part, Rule, Sources, Target, part_of_grant};

impl<'a> Naive<'a> {
    /// Whom each node sees, as [`Self::views`] tell, but in time for thousands of nodes and of rules.
    pub fn visibility(
        policy: &'a Policy,
        users: &'a [UserFacts],
        nodes: &'a [NodeFacts],
        incumbents: &BTreeMap<IpNet, NodeId>,
    ) -> BTreeMap<NodeId, BTreeSet<NodeId>> {
        let naive = Self::without_rules(policy, users, nodes, incumbents);
        let mut marked = Marked::new(nodes);
        naive.mark_common_rules(&mut marked);
        let for_self: Vec<Part<'_>> =
            naive.parts().filter_map(|(part, is_for_self)| is_for_self.then_some(part)).collect();
        for to in 0..nodes.len() {
            let rules = naive.own_rules(&for_self, &nodes[to]);
            for from in 0..nodes.len() {
                let reaches = |rule: &Rule| lets_in(rule, &nodes[from], &nodes[to]);
                if rules.iter().any(reaches) || naive.is_steered(&nodes[from], &nodes[to]) {
                    marked.mark(&[from], &[to]);
                }
            }
        }
        marked.peers()
    }

    /// Marks what the rules that are the same on all nodes let through.
    fn mark_common_rules(&self, marked: &mut Marked<'a>) {
        if self.policy.acls.is_none() && self.policy.grants.is_none() {
            self.implicit_rule().iter().for_each(|rule| marked.mark_rule(rule));
            return;
        }
        let mut seen = Seen::default();
        for (part, _) in self.parts() {
            if part.dst.is_empty() {
                continue;
            }
            if part.app.is_empty() {
                self.mark_ports(&part, &mut seen, marked);
            } else {
                self.other_part(&part).iter().for_each(|rule| marked.mark_rule(rule));
            }
        }
    }

    /// Every acl destination and every grant without `via`, each without `autogroup:self` and with whether that was in it.
    fn parts(&self) -> impl Iterator<Item = (Part<'a>, bool)> {
        let grants = self.policy.grants.iter().flatten().filter(|grant| grant.via.is_empty());
        let acls = self.policy.acls.iter().flatten().flat_map(|acl| self.parts_of_acl(acl));
        grants.map(part_of_grant).chain(acls).map(|part| self.split(part))
    }

    /// Marks what port rules let through: sources and destinations do not depend on each other.
    fn mark_ports(&self, part: &Part<'a>, seen: &mut Seen<'a>, marked: &mut Marked<'a>) {
        if part.ip.iter().all(|(_, ports)| ports.is_empty()) {
            return;
        }
        let src = seen.sources.entry((part.src, part.src_posture)).or_insert_with(|| {
            let src = self.sources(part.src, part.src_posture);
            marked.those(|node| !src.set.is_empty() && src.hits(node))
        });
        let dst = seen.destinations.entry(part.dst.clone()).or_insert_with(|| {
            let selectors = part.dst.iter().map(|dst| self.policy.selector(*dst));
            let entries = selectors.flat_map(|dst| self.entries(dst, &[PortRange::ALL])).collect();
            let target = Target::Ports { entries, proto: None };
            let rule = Rule::new(&Sources::default(), target, Origin::Global);
            marked.those(|node| rule.serves(node))
        });
        marked.mark(src, dst);
    }

    /// The rules that stand on a node because of its user or its routes.
    fn own_rules(&self, for_self: &[Part<'_>], node: &NodeFacts) -> Vec<Rule> {
        let mut rules: Vec<Rule> =
            for_self.iter().flat_map(|part| self.self_part(part, node)).collect();
        let grants = self.policy.grants.iter().flatten().filter(|grant| !grant.via.is_empty());
        rules.extend(grants.flat_map(|grant| self.via_rules(grant, node)));
        rules
    }
}

/// Selectors, and the postures that are asked of their nodes.
type SourceList<'a> = (&'a [SelectorId], &'a [Arc<str>]);

/// What lists of selectors stand for, as indexes of nodes.
#[derive(Default)]
struct Seen<'a> {
    sources: HashMap<SourceList<'a>, Vec<usize>>,
    destinations: HashMap<Vec<SelectorId>, Vec<usize>>,
}

/// Who reaches whom.
struct Marked<'a> {
    nodes: &'a [NodeFacts],
    /// From, then to, by index.
    reached: Vec<Vec<bool>>,
}

impl<'a> Marked<'a> {
    fn new(nodes: &'a [NodeFacts]) -> Self {
        Self { nodes, reached: vec![vec![false; nodes.len()]; nodes.len()] }
    }

    /// The indexes of some nodes.
    fn those(&self, is_one: impl Fn(&NodeFacts) -> bool) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| is_one(&self.nodes[*index])).collect()
    }

    fn mark(&mut self, src: &[usize], dst: &[usize]) {
        for from in src {
            for to in dst {
                self.reached[*from][*to] = true;
            }
        }
    }

    /// Marks what a rule lets through that is on all nodes.
    fn mark_rule(&mut self, rule: &Rule) {
        let src = self.those(|node| rule.src.hits(node));
        let dst = self.those(|node| rule.serves(node));
        self.mark(&src, &dst);
    }

    /// Section 7: two nodes are peers if either reaches the other.
    fn peers(&self) -> BTreeMap<NodeId, BTreeSet<NodeId>> {
        let sees = |one: usize, other: usize| {
            one != other && (self.reached[one][other] || self.reached[other][one])
        };
        let peers = |one: usize| self.those_at(|other| sees(one, other)).collect();
        (0..self.nodes.len()).map(|one| (self.nodes[one].id, peers(one))).collect()
    }

    fn those_at(&self, is_one: impl Fn(usize) -> bool) -> impl Iterator<Item = NodeId> {
        (0..self.nodes.len()).filter(move |index| is_one(*index)).map(|index| self.nodes[index].id)
    }
}
