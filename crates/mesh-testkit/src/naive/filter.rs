//! Sections 6.8 and 6.9: the packet filter of one node.

use ipnet::IpNet;
use mesh_policy::{CapGrant, FilterRule, IpRanges, NetPortRange, NodeFacts};

use super::Naive;
use super::rules::{Caps, Entry, Origin, Rule, Target};
use super::selectors::{hits, internet};

impl Naive<'_> {
    /// Section 6: compiled, merged, reduced.
    pub(super) fn packet_filter(&self, node: &NodeFacts) -> Vec<FilterRule> {
        let rules = self.rules[&node.id].iter().filter(|rule| rule.origin != Origin::ViaApp);
        let merged = merge(rules);
        merged.iter().filter_map(|rule| reduce(rule, node)).collect()
    }
}

/// Section 6.8: port rules of the same sources, as text, and the same protocol are one, where the first stands.
fn merge<'a>(rules: impl Iterator<Item = &'a Rule>) -> Vec<Rule> {
    let mut merged: Vec<Rule> = Vec::new();
    for rule in rules {
        let Target::Ports { entries, proto } = &rule.target else {
            merged.push(rule.clone());
            continue;
        };
        let same = merged.iter_mut().find_map(|earlier| match &mut earlier.target {
            Target::Ports { entries, proto: earlier_proto }
                if earlier_proto == proto && earlier.src.texts == rule.src.texts =>
            {
                Some(entries)
            }
            Target::Ports { .. } | Target::Caps(_) => None,
        });
        match same {
            Some(earlier) => earlier.extend(entries.iter().cloned()),
            None => merged.push(rule.clone()),
        }
    }
    merged
}

/// Section 6.9: what of a rule concerns a node.
fn reduce(rule: &Rule, node: &NodeFacts) -> Option<FilterRule> {
    if rule.only_for.as_ref().is_some_and(|nodes| !nodes.contains(&node.id)) {
        return None;
    }
    let mut reduced = FilterRule {
        src_ips: rule.src.texts.iter().cloned().collect(),
        dst_ports: Vec::new(),
        ip_proto: None,
        cap_grant: Vec::new(),
    };
    match &rule.target {
        Target::Ports { entries, proto } => {
            let kept = entries.iter().filter(|entry| is_kept(entry, node));
            reduced.dst_ports = kept
                .map(|entry| NetPortRange { ip: entry.text.clone(), ports: entry.ports })
                .collect();
            reduced.ip_proto = *proto;
        }
        Target::Caps(caps) => {
            reduced.cap_grant = caps.iter().filter_map(|caps| reduce_caps(caps, node)).collect();
        }
    }
    let is_empty = reduced.dst_ports.is_empty() && reduced.cap_grant.is_empty();
    (!is_empty).then_some(reduced)
}

/// Section 6.9: the entry concerns the node, a subnet behind it, or the Internet behind it.
fn is_kept(entry: &Entry, node: &NodeFacts) -> bool {
    hits(&entry.set, node) || (node.is_exit_node() && internet().covers(&entry.set))
}

/// Section 6.5, last paragraph: a destination that holds an address of the node becomes it; one that overlaps a subnet
/// behind the node stays whole.
fn reduce_caps(caps: &Caps, node: &NodeFacts) -> Option<CapGrant> {
    let reduce = |dst: &IpNet| -> Option<IpNet> {
        let own = node.addresses().find(|address| dst.contains(address)).map(IpNet::from);
        let is_routed = || node.subnet_routes().any(|route| IpRanges::from(*dst).overlaps(&route));
        own.or_else(|| is_routed().then_some(*dst))
    };
    let dsts: Vec<IpNet> = caps.dsts.iter().filter_map(reduce).collect();
    (!dsts.is_empty()).then(|| CapGrant { dsts, cap_map: caps.cap_map.clone() })
}
