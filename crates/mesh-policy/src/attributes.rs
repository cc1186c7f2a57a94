//! What policy tells nodes of themselves, and where their addresses come from.

use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::NodeId;

use crate::compiled::CompiledPolicy;
use crate::facts::{NodeFacts, NodeOwner};
use crate::policy::{NodeAttributes, OneCgnatRoute, SelectorId};
use crate::program::{Atom, Kind};
use crate::view::Capabilities;

/// A node with this attribute neither has an IPv4 address nor sees those of others.
const DISABLE_IPV4: &str = "disable-ipv4";

/// The client chooses its UDP port anew at each start.
const RANDOMIZE_CLIENT_PORT: &str = "randomize-client-port";

/// What comes with the attribute `funnel`. Source: case nodeattrs-attr-c1 of the captures.
const FUNNEL_COMPANIONS: [&str; 2] = [
    "https://tailscale.com/cap/funnel-ports?ports=443,8443,10000",
    "https://tailscale.com/cap/warn-funnel-no-https",
];

impl CompiledPolicy {
    /// The attributes of a node: those of all entries of `nodeAttrs` that select it, and those of the network flags.
    /// Empty without such a node.
    ///
    /// Source: POLICY 9 and 13 of the design.
    pub fn attributes(&self, node: NodeId) -> Capabilities {
        let mut attributes = Capabilities::new();
        if self.node(node).is_none() {
            return attributes;
        }
        for entry in &self.policy().node_attrs {
            if self.selects_any(&entry.target, node) {
                add_entry(&mut attributes, entry);
            }
        }
        for flag in self.flags() {
            add(&mut attributes, flag);
        }
        attributes
    }

    /// Attributes that every node has.
    fn flags(&self) -> impl Iterator<Item = &'static str> {
        let policy = self.policy();
        let one_cgnat_route = policy.one_cgnat_route.map(|route| match route {
            OneCgnatRoute::MacAlways => "one-cgnat?v=true",
            OneCgnatRoute::MacNever => "one-cgnat?v=false",
        });
        let randomize = policy.randomize_client_port.then_some(RANDOMIZE_CLIENT_PORT);
        let disable = policy.disable_ipv4.then_some(DISABLE_IPV4);
        [randomize, disable, one_cgnat_route].into_iter().flatten()
    }

    /// Whether a node has the attribute `disable-ipv4`: neither it nor anybody else sees an IPv4 address of it, and it sees
    /// none of its peers'.
    pub fn hides_ipv4(&self, node: NodeId) -> bool {
        let hides = |entry: &NodeAttributes| entry.attr.iter().any(|name| **name == *DISABLE_IPV4);
        let entries = || self.policy().node_attrs.iter();
        let is_hidden = || {
            self.policy().disable_ipv4
                || entries().any(|entry| hides(entry) && self.selects_any(&entry.target, node))
        };
        self.class(node).is_some_and(|class| *class.hides_ipv4.get_or_init(is_hidden))
    }

    /// Where a node of this owner gets its IPv4 address from when it registers: the `ipPool` of the first entry of
    /// `nodeAttrs` that has one and selects it. Empty: from anywhere.
    ///
    /// The node has no address yet, so only who it belongs to selects it.
    pub fn ip_pool(&self, owner: &NodeOwner) -> &[IpNet] {
        let selectors = self.members_of(&NodeFacts {
            id: NodeId(0),
            owner: owner.clone(),
            ipv4: None,
            ipv6: None,
            active_routes: Arc::default(),
            online: false,
            device: Arc::default(),
        });
        let entries = &self.policy().node_attrs;
        let with_pool = entries.iter().filter(|entry| !entry.ip_pool.is_empty());
        let selects = |entry: &&NodeAttributes| self.is_any_of(&entry.target, &selectors);
        with_pool.filter(selects).map(|entry| &*entry.ip_pool).next().unwrap_or_default()
    }

    /// Whether one of these is among the selectors of a node, or selects everybody.
    pub(crate) fn is_any_of(&self, wanted: &[SelectorId], selectors: &[Atom]) -> bool {
        wanted.iter().any(|wanted| {
            *self.program.kind(wanted.0) == Kind::Everybody
                || selectors.binary_search(&wanted.0).is_ok()
        })
    }
}

fn add_entry(attributes: &mut Capabilities, entry: &NodeAttributes) {
    for name in &entry.attr {
        add(attributes, name);
        if **name == *"funnel" {
            for companion in FUNNEL_COMPANIONS {
                add(attributes, companion);
            }
        }
    }
    for (name, values) in &entry.app {
        let known = attributes.entry(name.clone()).or_default();
        if !values.is_empty() {
            known.get_or_insert_default().extend(values.iter().cloned());
        }
    }
}

/// Adds an attribute without a value.
fn add(attributes: &mut Capabilities, name: &str) {
    attributes.entry(name.into()).or_default();
}

#[cfg(test)]
mod tests;
