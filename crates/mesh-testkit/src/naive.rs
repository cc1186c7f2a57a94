//! A naive evaluator of policies: the judge of the engine.
//!
//! It follows the policy specification section by section, node pair by rule, without any index, and shares nothing with
//! the engine but the checked [`Policy`] and the shapes of questions and answers. It is slow on purpose: what is
//! right must be plain to see. Each function names the section of the specification that it follows.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use mesh_model::NodeId;
use mesh_policy::{NodeFacts, NodeView, PeerView, Policy, UserFacts};

use rules::Rule;

mod attributes;
mod checks;
mod filter;
mod postures;
mod routes;
mod rules;
mod selectors;
mod ssh;
mod visibility;

pub use routes::elect;

/// A policy over a tailnet, ready to be asked.
#[derive(Debug)]
pub struct Naive<'a> {
    policy: &'a Policy,
    users: BTreeMap<u64, &'a UserFacts>,
    nodes: BTreeMap<NodeId, &'a NodeFacts>,
    primaries: BTreeMap<IpNet, NodeId>,
    /// Per node: all rules as they stand on it, before they are merged and reduced.
    rules: BTreeMap<NodeId, Vec<Rule>>,
}

impl<'a> Naive<'a> {
    /// Evaluates a policy for a tailnet whose primaries were `incumbents`.
    pub fn new(
        policy: &'a Policy,
        users: &'a [UserFacts],
        nodes: &'a [NodeFacts],
        incumbents: &BTreeMap<IpNet, NodeId>,
    ) -> Self {
        let mut naive = Self::without_rules(policy, users, nodes, incumbents);
        naive.rules = nodes.iter().map(|node| (node.id, naive.rules_of(node))).collect();
        naive
    }

    fn without_rules(
        policy: &'a Policy,
        users: &'a [UserFacts],
        nodes: &'a [NodeFacts],
        incumbents: &BTreeMap<IpNet, NodeId>,
    ) -> Self {
        Self {
            policy,
            users: users.iter().map(|user| (user.id.0, user)).collect(),
            nodes: nodes.iter().map(|node| (node.id, node)).collect(),
            primaries: elect(nodes, incumbents),
            rules: BTreeMap::new(),
        }
    }

    /// Everything that policy says about a node.
    pub fn view(&self, id: NodeId) -> Option<NodeView> {
        let node = *self.nodes.get(&id)?;
        let primary_routes = self.primaries.iter().filter(|(_, primary)| **primary == id);
        Some(NodeView {
            packet_filter: self.packet_filter(node),
            ssh: self.ssh(node),
            addresses: self.shown_addresses(node, node),
            primary_routes: primary_routes.map(|(route, _)| *route).collect(),
            attributes: self.attributes(node),
            peers: self.peers(node),
        })
    }

    /// The views of all nodes.
    pub fn views(&self) -> BTreeMap<NodeId, NodeView> {
        self.nodes.keys().filter_map(|id| Some((*id, self.view(*id)?))).collect()
    }

    /// The primary of each subnet route.
    pub fn primaries(&self) -> &BTreeMap<IpNet, NodeId> {
        &self.primaries
    }

    /// Sections 7 and 8: whom a node sees, and how.
    fn peers(&self, viewer: &NodeFacts) -> BTreeMap<NodeId, PeerView> {
        let peers = self.nodes.values().filter(|peer| self.are_peers(viewer, peer));
        let view = |peer: &NodeFacts| PeerView {
            addresses: self.shown_addresses(viewer, peer),
            routes: self.shown_routes(viewer, peer),
        };
        peers.map(|peer| (peer.id, view(peer))).collect()
    }

    /// Section 2.1: the nodes that a list of selectors selects, ascending.
    fn selected(&self, selectors: &[mesh_policy::SelectorId]) -> BTreeSet<NodeId> {
        let is_selected =
            |node: &&&NodeFacts| selectors.iter().any(|selector| self.selects(*selector, node));
        self.nodes.values().filter(is_selected).map(|node| node.id).collect()
    }
}
