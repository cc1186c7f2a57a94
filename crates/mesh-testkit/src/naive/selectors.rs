//! Section 2: what selectors stand for.

use std::sync::Arc;

use ipnet::IpNet;
use mesh_policy::{IpRanges, NodeFacts, Role, Selector, SelectorId, UserFacts};

use super::Naive;

/// Prefixes as a set.
pub(super) fn set_of(prefixes: &[&str]) -> IpRanges {
    prefixes.iter().map(|text| text.parse::<IpNet>().expect("invariant: well-formed")).collect()
}

/// Section 2.2: `*` as a source, without subnet routes: what nodes get as addresses. A part of the range belongs to
/// virtual machines on Chromebooks.
pub(super) fn wildcard() -> IpRanges {
    let mut set = set_of(&["100.64.0.0/10", "fd7a:115c:a1e0::/48"]);
    set.remove(&set_of(&["100.115.92.0/23"]));
    set
}

/// Sections 2.2 and 6.3: `autogroup:internet`.
pub(super) fn internet() -> IpRanges {
    let mut set = set_of(&["0.0.0.0/0", "2000::/3"]);
    let private =
        ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"];
    set.remove(&set_of(&private));
    set
}

/// Whether two sets share an address.
pub(super) fn overlap(one: &IpRanges, other: &IpRanges) -> bool {
    one.prefixes().any(|prefix| other.overlaps(&prefix))
}

/// Whether a set shares an address with one of a node's addresses or subnet routes.
pub(super) fn hits(set: &IpRanges, node: &NodeFacts) -> bool {
    node.addresses().any(|address| set.contains(address))
        || node.subnet_routes().any(|route| set.overlaps(&route))
}

impl Naive<'_> {
    /// Section 2.2: the users that a token names: by the identity provider's id, else by email or name. One `@` at its
    /// end is no part of it.
    fn users_named(&self, token: &str) -> Vec<&UserFacts> {
        let token = token.strip_suffix('@').unwrap_or(token);
        let all = || self.users.values().copied();
        let by_provider: Vec<_> =
            all().filter(|user| !token.is_empty() && *user.provider_id == *token).collect();
        if !by_provider.is_empty() {
            return by_provider;
        }
        all().filter(|user| *user.email == *token || *user.name == *token).collect()
    }

    /// Whether a token names the user of an untagged node.
    pub(super) fn is_owned_by_token(&self, token: &str, node: &NodeFacts) -> bool {
        self.users_named(token).iter().any(|user| node.user() == Some(user.id))
    }

    fn has_role(&self, node: &NodeFacts, is_wanted: fn(Role) -> bool) -> bool {
        self.user_of(node).is_some_and(|user| is_wanted(user.role))
    }

    /// The user of an untagged node.
    pub(super) fn user_of(&self, node: &NodeFacts) -> Option<&UserFacts> {
        self.users.get(&node.user()?.0).copied()
    }

    /// Section 2.2: whether a selector selects a node: by identity, or because one of its addresses is in the set.
    pub(super) fn selects(&self, selector: SelectorId, node: &NodeFacts) -> bool {
        self.selector_selects(self.policy.selector(selector), node)
    }

    /// As [`Self::selects`], for a selector that need not stand in a rule.
    pub(super) fn selector_selects(&self, selector: &Selector, node: &NodeFacts) -> bool {
        match selector {
            Selector::User(token) => self.is_owned_by_token(token, node),
            Selector::UserDomain(domain) => {
                self.user_of(node).is_some_and(|user| domain_of(user.login()) == Some(domain))
            }
            Selector::Group(name) => {
                let members = self.policy.groups.get(name).map_or(&[][..], Vec::as_slice);
                members.iter().any(|token| self.is_owned_by_token(token, node))
            }
            Selector::Tag(tag) => node.tags().contains(tag),
            Selector::Member => node.user().is_some(),
            Selector::Tagged => node.user().is_none(),
            Selector::Admin => {
                self.has_role(node, |role| matches!(role, Role::Admin | Role::Owner))
            }
            Selector::Owner => self.has_role(node, |role| role == Role::Owner),
            Selector::SelfNodes => false,
            Selector::Any
            | Selector::DangerAll
            | Selector::Internet
            | Selector::Host(_)
            | Selector::IpSet(_)
            | Selector::Prefix(_) => {
                let set = self.literal(selector).unwrap_or_default();
                node.addresses().any(|address| set.contains(address))
            }
        }
    }

    /// Section 2.2: the addresses that a selector stands for by itself; none if it stands for nodes.
    pub(super) fn literal(&self, selector: &Selector) -> Option<IpRanges> {
        match selector {
            Selector::Any => Some(wildcard()),
            Selector::DangerAll => Some(IpRanges::all()),
            Selector::Internet => Some(internet()),
            Selector::Host(name) => self.policy.hosts.get(name).map(|prefix| (*prefix).into()),
            Selector::IpSet(name) => self.policy.ipsets.get(name).cloned(),
            Selector::Prefix(prefix) => Some((*prefix).into()),
            Selector::User(_)
            | Selector::UserDomain(_)
            | Selector::Group(_)
            | Selector::Tag(_)
            | Selector::Member
            | Selector::Tagged
            | Selector::SelfNodes
            | Selector::Admin
            | Selector::Owner => None,
        }
    }

    /// Section 2.2: the addresses of a selector: literal, or those of the nodes it selects.
    pub(super) fn addresses_of(&self, selector: &Selector) -> IpRanges {
        self.literal(selector).unwrap_or_else(|| {
            let nodes = self.nodes.values().filter(|node| self.selector_selects(selector, node));
            nodes.flat_map(|node| node.addresses()).collect()
        })
    }

    /// Section 6.2: every subnet route of the tailnet that is active, on whichever node.
    pub(super) fn all_subnet_routes(&self) -> Vec<IpNet> {
        self.nodes.values().flat_map(|node| node.subnet_routes()).collect()
    }
}

/// Section 10: what stands after the last `@` of a login name.
pub(super) fn domain_of(login: &str) -> Option<&str> {
    login.rsplit_once('@').map(|(_, domain)| domain)
}

/// Ranges as packet filters write them.
pub(super) fn texts(set: &IpRanges) -> impl Iterator<Item = Arc<str>> {
    set.ranges().map(|range| range.to_string().into())
}
