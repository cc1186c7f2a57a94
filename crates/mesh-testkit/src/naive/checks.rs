//! Section 11: the policy's own tests.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::NodeId;
use mesh_policy::policy::{SshTest, Test};
use mesh_policy::{IpRanges, NodeFacts, NodeOwner, Selector, SshAccess};

use super::Naive;
use super::rules::{Rule, Target};
use super::selectors::overlap;

impl Naive<'_> {
    /// Section 11: whether all `tests` and `sshTests` pass.
    pub fn passes_tests(&self) -> bool {
        let tests = self.policy.tests.iter().all(|test| self.passes(test).unwrap_or(false));
        let is_passed = |test| self.passes_ssh(test).unwrap_or(false);
        tests && self.policy.ssh_tests.iter().all(is_passed)
    }

    /// Section 11.1; none if the test is malformed. Of a source with several addresses all must be accepted, and none
    /// must be denied: the stricter reading of section 15.
    fn passes(&self, test: &Test) -> Option<bool> {
        let src = self.test_prefixes(&self.test_selector(&test.src)?)?;
        let protos = test_protocols(&test.proto)?;
        if src.is_empty() || (test.accept.is_empty() && test.deny.is_empty()) {
            return None;
        }
        for destination in &test.accept {
            let (dst, port) = self.test_destination(destination)?;
            if !src.iter().all(|src| self.allows(*src, &protos, &dst, port)) {
                return Some(false);
            }
        }
        for destination in &test.deny {
            let (dst, port) = self.test_destination(destination)?;
            if src.iter().any(|src| self.allows(*src, &protos, &dst, port)) {
                return Some(false);
            }
        }
        Some(true)
    }

    /// Section 11.1: whether a rule that is the same on all nodes lets a source reach one of some destinations.
    fn allows(&self, src: IpNet, protos: &[u8], dst: &IpRanges, port: u16) -> bool {
        let lets_in = |rule: &Rule| match &rule.target {
            Target::Ports { entries, proto } => {
                let is_proto = proto.is_none_or(|proto| protos.contains(&proto));
                let is_dst = entries.iter().any(|entry| {
                    overlap(&entry.set, dst)
                        && (entry.ports.first..=entry.ports.last).contains(&port)
                });
                rule.src.set.overlaps(&src) && is_proto && is_dst
            }
            Target::Caps(_) => false,
        };
        self.global_rules().iter().any(lets_in)
    }

    /// The rules as they stand on a node that is nobody's.
    fn global_rules(&self) -> Vec<Rule> {
        self.rules_of(&NodeFacts {
            id: NodeId(0),
            owner: NodeOwner::Tags(Arc::new([])),
            ipv4: None,
            ipv6: None,
            active_routes: Arc::new([]),
            online: false,
            device: Arc::default(),
        })
    }

    /// Section 2.1: the selector of a text, if what it names is defined.
    fn test_selector(&self, text: &str) -> Option<Selector> {
        let name: Arc<str> = text.into();
        if let Ok(prefix) = text.parse::<IpNet>() {
            return Some(Selector::Prefix(prefix));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Selector::Prefix(address.into()));
        }
        if let Some(domain) = text.strip_prefix("user:*@") {
            return Some(Selector::UserDomain(domain.into()));
        }
        match text {
            "*" => return Some(Selector::Any),
            "autogroup:member" => return Some(Selector::Member),
            "autogroup:tagged" => return Some(Selector::Tagged),
            "autogroup:admin" => return Some(Selector::Admin),
            "autogroup:owner" => return Some(Selector::Owner),
            "autogroup:self" => return Some(Selector::SelfNodes),
            _ => {}
        }
        if text.contains('@') {
            return Some(Selector::User(name));
        }
        let is_defined = |is_defined: bool, selector| is_defined.then_some(selector);
        if text.starts_with("group:") {
            return is_defined(self.policy.groups.contains_key(&name), Selector::Group(name));
        }
        if text.starts_with("tag:") {
            return is_defined(self.policy.tag_owners.contains_key(&name), Selector::Tag(name));
        }
        if text.starts_with("ipset:") {
            return is_defined(self.policy.ipsets.contains_key(&name), Selector::IpSet(name));
        }
        is_defined(self.policy.hosts.contains_key(&name), Selector::Host(name))
    }

    /// Section 11.1: the prefixes of a selector. Addresses of nodes stand alone; `*` has subnets, as in rules.
    fn test_prefixes(&self, selector: &Selector) -> Option<Vec<IpNet>> {
        if *selector == Selector::SelfNodes {
            return None;
        }
        Some(match self.literal(selector) {
            Some(literal) if *selector == Selector::Any => {
                literal.prefixes().chain(self.all_subnet_routes()).collect()
            }
            Some(literal) => literal.prefixes().collect(),
            None => {
                self.nodes_of(selector).flat_map(NodeFacts::addresses).map(IpNet::from).collect()
            }
        })
    }

    fn nodes_of(&self, selector: &Selector) -> impl Iterator<Item = &NodeFacts> {
        self.nodes.values().copied().filter(|node| self.selector_selects(selector, node))
    }

    /// Section 11.1: a destination of a test: one port, and an alias of one address at most.
    fn test_destination(&self, text: &str) -> Option<(IpRanges, u16)> {
        let (selector, port) = text.rsplit_once(':')?;
        let selector =
            selector.strip_prefix('[').map_or(selector, |rest| rest.trim_end_matches(']'));
        if selector.contains('/') {
            return None;
        }
        let selector = self.test_selector(selector)?;
        let set: IpRanges = self.test_prefixes(&selector)?.into_iter().collect();
        let ranges: Vec<_> = set.ranges().collect();
        let is_single = matches!(*ranges, [range] if range.first == range.last);
        let is_wide = matches!(selector, Selector::Host(_) | Selector::IpSet(_)) && !is_single;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!set.is_empty() && !is_wide).then_some((set, port))
    }

    /// Section 11.2; none if the test is malformed.
    fn passes_ssh(&self, test: &SshTest) -> Option<bool> {
        let src = self.test_selector(&test.src)?;
        let sources: Vec<IpAddr> = match self.literal(&src) {
            Some(literal) => {
                let addresses = self.nodes.values().flat_map(|node| node.addresses());
                addresses.filter(|address| literal.contains(*address)).collect()
            }
            None => self.nodes_of(&src).flat_map(NodeFacts::addresses).collect(),
        };
        let mut nodes: Vec<&NodeFacts> = Vec::new();
        for dst in &test.dst {
            let found = self.ssh_test_nodes(&src, dst)?;
            if found.is_empty() {
                return None;
            }
            nodes.extend(found);
        }
        let is_empty = test.accept.is_empty() && test.deny.is_empty() && test.check.is_empty();
        if sources.is_empty() || nodes.is_empty() || is_empty {
            return None;
        }
        Some(nodes.iter().all(|node| {
            let rules = self.ssh(node);
            sources.iter().all(|source| {
                let lets_in = |rule: &&SshAccess, login: &str| {
                    rule.principals.contains(source) && allows_login(rule, login)
                };
                let any = |login: &str| rules.iter().any(|rule| lets_in(&rule, login));
                let checked = |login: &str| {
                    rules.iter().any(|rule| lets_in(&rule, login) && rule.check_period.is_some())
                };
                test.accept.iter().all(|login| any(login))
                    && test.deny.iter().all(|login| !any(login))
                    && test.check.iter().all(|login| checked(login))
            })
        }))
    }

    /// Section 11.2: the nodes of a destination; `autogroup:self` needs a user as source.
    fn ssh_test_nodes(&self, src: &Selector, dst: &str) -> Option<Vec<&NodeFacts>> {
        let selector = self.test_selector(dst)?;
        if selector == Selector::SelfNodes {
            return matches!(src, Selector::User(_)).then(|| self.nodes_of(src).collect());
        }
        Some(self.nodes_of(&selector).collect())
    }
}

/// Section 11.1: the protocols a test is about.
fn test_protocols(text: &str) -> Option<Vec<u8>> {
    match text.to_ascii_lowercase().as_str() {
        "" => Some(vec![6, 17, 1, 58]),
        "tcp" | "6" => Some(vec![6]),
        "udp" | "17" => Some(vec![17]),
        "sctp" | "132" => Some(vec![132]),
        _ => None,
    }
}

/// Section 11.2: whether a rule lets somebody log in under a name.
fn allows_login(rule: &SshAccess, login: &str) -> bool {
    match rule.ssh_users.get(login) {
        _ if login.is_empty() => false,
        Some(name) => !name.is_empty(),
        None => login != "root" && rule.ssh_users.contains_key("*"),
    }
}
