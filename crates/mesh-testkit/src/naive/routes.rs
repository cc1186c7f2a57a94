//! Sections 7 and 8: who sees whom, and which routes.

use std::collections::BTreeMap;

use ipnet::IpNet;
use mesh_model::NodeId;
use mesh_policy::policy::Grant;
use mesh_policy::{NodeFacts, Selector};

use super::Naive;
use super::rules::{Origin, Rule};

/// Section 8.2: the primary of each subnet route: the incumbent while it is an online advertiser, else the first
/// registered online advertiser, else nobody.
pub fn elect(nodes: &[NodeFacts], incumbents: &BTreeMap<IpNet, NodeId>) -> BTreeMap<IpNet, NodeId> {
    let mut candidates: BTreeMap<IpNet, Vec<NodeId>> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node.online) {
        for route in node.subnet_routes() {
            candidates.entry(route).or_default().push(node.id);
        }
    }
    let winner = |(route, ids): (IpNet, Vec<NodeId>)| {
        let incumbent = incumbents.get(&route).copied().filter(|id| ids.contains(id));
        Some((route, incumbent.or_else(|| ids.iter().min().copied())?))
    };
    candidates.into_iter().filter_map(winner).collect()
}

/// Section 7: whether a rule on `to` lets `from` in, or a subnet or the Internet behind `to` be reached.
pub(super) fn lets_in(rule: &Rule, from: &NodeFacts, to: &NodeFacts) -> bool {
    let is_same_user = match rule.origin {
        Origin::SelfOf(user) => from.user() == Some(user),
        Origin::Global | Origin::Companion | Origin::Via | Origin::ViaApp => true,
    };
    is_same_user && rule.src.hits(from) && rule.serves(to)
}

fn is_exit(route: &IpNet) -> bool {
    route.prefix_len() == 0
}

impl Naive<'_> {
    /// Section 7: two nodes are peers if either reaches the other.
    pub(super) fn are_peers(&self, one: &NodeFacts, other: &NodeFacts) -> bool {
        one.id != other.id && (self.reaches(one, other) || self.reaches(other, one))
    }

    /// Section 7: whether a rule on a node lets another one in, or a subnet or the Internet behind it be reached.
    fn reaches(&self, from: &NodeFacts, to: &NodeFacts) -> bool {
        self.rules[&to.id].iter().any(|rule| lets_in(rule, from, to)) || self.is_steered(from, to)
    }

    /// Section 7: whether a node carries traffic of another one for a grant with `via`.
    pub(super) fn is_steered(&self, from: &NodeFacts, to: &NodeFacts) -> bool {
        let carries = |grant: &Grant| {
            self.has_tag_of(&grant.via, to) && !self.via_routes(grant, to).is_empty()
        };
        self.via_grants_of(from).any(carries)
    }

    /// Section 8.3: the routes that a viewer may use through a peer, sorted.
    pub(super) fn shown_routes(&self, viewer: &NodeFacts, peer: &NodeFacts) -> Vec<IpNet> {
        let is_shown = |route: &IpNet| match self.steering(viewer, peer, route) {
            Steering::Included => true,
            Steering::Excluded => false,
            Steering::None => self.is_shown_unsteered(viewer, peer, route),
        };
        let mut routes: Vec<IpNet> = peer.active_routes.iter().copied().filter(is_shown).collect();
        routes.sort();
        routes
    }

    /// Section 8.3, without `via`: what a grant with `via` lets a viewer use is told by [`Self::steering`]. Rules for
    /// `autogroup:self` are about nodes, not about routes (6.6).
    fn is_shown_unsteered(&self, viewer: &NodeFacts, peer: &NodeFacts, route: &IpNet) -> bool {
        let is_about = |rule: &&Rule| !matches!(rule.origin, Origin::SelfOf(_));
        let mut rules = self.rules[&viewer.id].iter().filter(is_about);
        if is_exit(route) {
            return rules.any(|rule| rule.src.hits(viewer) && rule.leads_out());
        }
        let may_use = |rule: &Rule| {
            let is_steered = matches!(rule.origin, Origin::Via | Origin::ViaApp);
            let there = !is_steered && rule.src.hits(viewer) && rule.leads_into(route);
            let back = rule.src.overlaps(route) && rule.leads_to(viewer);
            let out = || rule.src.overlaps(route) && rule.leads_out() && viewer.is_exit_node();
            there || back || out()
        };
        let is_primary = self.primaries.get(route) == Some(&peer.id);
        let is_co_router = viewer.active_routes.contains(route);
        is_primary && (is_co_router || rules.any(may_use))
    }

    /// Section 8.4: what grants with `via` say about a route of a peer.
    fn steering(&self, viewer: &NodeFacts, peer: &NodeFacts, route: &IpNet) -> Steering {
        let grants: Vec<&Grant> = self
            .via_grants_of(viewer)
            .filter(|grant| self.via_routes(grant, peer).contains(route))
            .collect();
        if grants.is_empty() {
            return Steering::None;
        }
        let is_included =
            grants.iter().any(|grant| self.via_winners(grant, route).contains(&peer.id));
        let has_other_way = self.rules[&viewer.id].iter().any(|rule| {
            let target = rule.target.without_wildcard();
            let is_covered =
                if is_exit(route) { target.covers_internet() } else { target.overlaps(route) };
            rule.origin == Origin::Global && rule.src.hits(viewer) && is_covered
        });
        let is_primary = self.primaries.get(route) == Some(&peer.id);
        match (is_included, has_other_way) {
            (true, true) if is_primary => Steering::Included,
            (_, true) => Steering::None,
            (true, false) => Steering::Included,
            (false, false) => Steering::Excluded,
        }
    }

    /// Section 8.4: the grants with `via` whose sources cover a viewer.
    fn via_grants_of(&self, viewer: &NodeFacts) -> impl Iterator<Item = &Grant> {
        let grants = self.policy.grants.iter().flatten();
        grants.filter(|grant| {
            !grant.via.is_empty() && self.sources(&grant.src, &grant.src_posture).hits(viewer)
        })
    }

    /// Section 8.4: the active routes of a node that a grant with `via` is about.
    fn via_routes(&self, grant: &Grant, node: &NodeFacts) -> Vec<IpNet> {
        let destinations = self.via_destinations(grant);
        let is_internet = |dst| *self.policy.selector(dst) == Selector::Internet;
        let has_internet = grant.dst.iter().any(|dst| is_internet(*dst));
        let is_matched = |route: &IpNet| {
            if is_exit(route) { has_internet } else { destinations.overlaps(route) }
        };
        node.active_routes.iter().copied().filter(is_matched).collect()
    }

    /// Section 8.4: the routers that carry a route for a grant with `via`: of a subnet the first registered one that is
    /// online; of the Internet all that are online, for exit routes have no primary (8.2).
    fn via_winners(&self, grant: &Grant, route: &IpNet) -> Vec<NodeId> {
        let group = self.nodes.values().filter(|node| {
            self.has_tag_of(&grant.via, node) && node.online && node.active_routes.contains(route)
        });
        let most = if is_exit(route) { usize::MAX } else { 1 };
        group.map(|node| node.id).take(most).collect()
    }
}

enum Steering {
    Included,
    Excluded,
    None,
}
