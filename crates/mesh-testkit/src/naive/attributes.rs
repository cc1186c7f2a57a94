//! Sections 9 and 12.1: node attributes, addresses that are hidden, approval of routes.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_policy::policy::{OneCgnatRoute, RawJson};
use mesh_policy::{Capabilities, NodeFacts, SelectorId};

use super::Naive;

impl Naive<'_> {
    /// Section 9: what `nodeAttrs` and the flags of the tailnet give a node.
    pub(super) fn attributes(&self, node: &NodeFacts) -> Capabilities {
        let mut attributes = Capabilities::new();
        let mut give = |name: &str, values: Option<&[RawJson]>| {
            let held = attributes.entry(Arc::from(name)).or_default();
            if let Some(values) = values {
                held.get_or_insert_default().extend_from_slice(values);
            }
        };
        for entry in &self.policy.node_attrs {
            if !entry.target.iter().any(|target| self.selects(*target, node)) {
                continue;
            }
            for name in &entry.attr {
                give(name, None);
                if &**name == "funnel" {
                    give("https://tailscale.com/cap/funnel-ports?ports=443,8443,10000", None);
                    give("https://tailscale.com/cap/warn-funnel-no-https", None);
                }
            }
            for (name, values) in &entry.app {
                give(name, Some(values));
            }
        }
        if self.policy.randomize_client_port {
            give("randomize-client-port", None);
        }
        if self.policy.disable_ipv4 {
            give("disable-ipv4", None);
        }
        match self.policy.one_cgnat_route {
            Some(OneCgnatRoute::MacAlways) => give("one-cgnat?v=true", None),
            Some(OneCgnatRoute::MacNever) => give("one-cgnat?v=false", None),
            None => {}
        }
        attributes
    }

    /// Section 9: a node with `disable-ipv4` has no IPv4 address for anybody, and sees none of anybody.
    pub(super) fn shown_addresses(&self, viewer: &NodeFacts, node: &NodeFacts) -> Vec<IpAddr> {
        let hides = |node| self.attributes(node).contains_key("disable-ipv4");
        let is_hidden = hides(viewer) || hides(node);
        node.addresses().filter(|address| address.is_ipv6() || !is_hidden).collect()
    }

    /// Section 12.1: the routes out of `offered` that need no admin, in their order. A subnet needs a key that contains
    /// it; exit routes are approved by `exitNode` alone.
    pub fn auto_approved(&self, node: &NodeFacts, offered: &[IpNet]) -> Vec<IpNet> {
        let approvers = &self.policy.auto_approvers;
        let names_node = |approvers: &[SelectorId]| {
            approvers.iter().any(|approver| self.selects(*approver, node))
        };
        let is_approved = |route: &IpNet| {
            if route.prefix_len() == 0 {
                return names_node(&approvers.exit_node);
            }
            let keys = approvers.routes.iter();
            keys.filter(|(key, _)| key.contains(route)).any(|(_, approvers)| names_node(approvers))
        };
        offered.iter().copied().filter(is_approved).collect()
    }
}
