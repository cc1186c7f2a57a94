//! What policy says about a node, as JSON: a client's netmap without what policy does not decide.
//!
//! Names are those of the wire. What is usual (both addresses, no routes, the capabilities that every node has)
//! is left out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::NodeId;
use mesh_policy::{
    CapGrant, Capabilities, FilterRule, NetPortRange, NodeView, PeerView, RawJson, Role, SshAccess,
};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::topology::{Topology, TopologyNode};

/// The domain under which nodes of an evaluated tailnet have their names.
const DOMAIN: &str = "tail78f774.ts.net";

/// Capabilities that every node has, whatever the policy.
const BASELINE: [&str; 8] = [
    "https://tailscale.com/cap/file-sharing",
    "https://tailscale.com/cap/ssh",
    "https://tailscale.com/cap/tailnet-lock",
    "probe-udp-lifetime",
    "ssh-behavior-v1",
    "ssh-env-vars",
    "store-appc-routes",
    "tailnet-display-name",
];

/// Capabilities of the owner's and of tagged nodes.
const IS_OWNER: &str = "https://tailscale.com/cap/is-owner";

/// Capabilities of the nodes of those who administer the tailnet.
const IS_ADMIN: &str = "https://tailscale.com/cap/is-admin";

/// Every node's, once the tailnet has decided on updates.
const AUTO_UPDATE: &str = "default-auto-update";

/// What a peer has while it shows the viewer an exit route.
const SUGGEST_EXIT_NODE: &str = "suggest-exit-node";

/// Where a client asks whether a session may start; the real address is the server's.
const CHECK_URL: &str = "$CHECK_URL";

/// One node's view.
#[derive(Debug, Serialize)]
pub(super) struct View<'a> {
    packet_filter_rules: Vec<Rule<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh_rules: Vec<SshRule<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    primary_routes: &'a [IpNet],
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<IpNet>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    cap_map: CapMap<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<Value>,
    peers: BTreeMap<&'a str, Peer<'a>>,
}

type CapMap<'a> = BTreeMap<&'a str, Option<Vec<Box<RawValue>>>>;

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Rule<'a> {
    #[serde(rename = "SrcIPs")]
    src_ips: &'a [Arc<str>],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dst_ports: Vec<Destination<'a>>,
    #[serde(rename = "IPProto", skip_serializing_if = "Option::is_none")]
    ip_proto: Option<[u8; 1]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cap_grant: Vec<Grant<'a>>,
}

#[derive(Debug, Serialize)]
struct Destination<'a> {
    #[serde(rename = "IP")]
    ip: &'a str,
    #[serde(rename = "Ports")]
    ports: Ports,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ports {
    first: u16,
    last: u16,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Grant<'a> {
    dsts: &'a [IpNet],
    cap_map: CapMap<'a>,
}

#[derive(Debug, Serialize)]
struct SshRule<'a> {
    principals: Vec<String>,
    #[serde(rename = "sshUsers")]
    ssh_users: &'a BTreeMap<Arc<str>, Arc<str>>,
    action: Value,
    #[serde(rename = "acceptEnv", skip_serializing_if = "<[_]>::is_empty")]
    accept_env: &'a [Arc<str>],
}

#[derive(Debug, Serialize)]
struct Peer<'a> {
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    routes: &'a [IpNet],
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<IpNet>>,
    #[serde(skip_serializing_if = "CapMap::is_empty")]
    cap_map: CapMap<'a>,
}

impl<'a> View<'a> {
    /// The view of a node of the topology.
    pub(super) fn new(topology: &'a Topology, node: &TopologyNode, view: &'a NodeView) -> Self {
        let peer = |(id, peer): (&NodeId, &'a PeerView)| {
            let node = topology.node(*id);
            (node.name.as_str(), Peer::new(node, peer))
        };
        Self {
            packet_filter_rules: view.packet_filter.iter().map(Rule::from).collect(),
            ssh_rules: view.ssh.iter().map(SshRule::from).collect(),
            primary_routes: &view.primary_routes,
            addresses: unusual_addresses(node, &view.addresses),
            cap_map: beyond_baseline(topology, node, &view.attributes),
            dns: topology.has_magic_dns.then(dns),
            peers: view.peers.iter().map(peer).collect(),
        }
    }
}

impl<'a> From<&'a FilterRule> for Rule<'a> {
    fn from(rule: &'a FilterRule) -> Self {
        Self {
            src_ips: &rule.src_ips,
            dst_ports: rule.dst_ports.iter().map(Destination::from).collect(),
            ip_proto: rule.ip_proto.map(|proto| [proto]),
            cap_grant: rule.cap_grant.iter().map(Grant::from).collect(),
        }
    }
}

impl<'a> From<&'a NetPortRange> for Destination<'a> {
    fn from(range: &'a NetPortRange) -> Self {
        let ports = Ports { first: range.ports.first, last: range.ports.last };
        Self { ip: &range.ip, ports }
    }
}

impl<'a> From<&'a CapGrant> for Grant<'a> {
    fn from(grant: &'a CapGrant) -> Self {
        Self { dsts: &grant.dsts, cap_map: grant.cap_map.iter().map(capability).collect() }
    }
}

impl<'a> From<&'a SshAccess> for SshRule<'a> {
    fn from(access: &'a SshAccess) -> Self {
        let mut principals: Vec<String> = access.principals.iter().map(IpAddr::to_string).collect();
        principals.sort();
        let action = match access.check_period {
            Some(_) => json!({ "holdAndDelegate": CHECK_URL }),
            None => json!({
                "accept": true,
                "allowAgentForwarding": true,
                "allowLocalPortForwarding": true,
                "allowRemotePortForwarding": true,
            }),
        };
        Self { principals, ssh_users: &access.ssh_users, action, accept_env: &access.accept_env }
    }
}

impl<'a> Peer<'a> {
    fn new(node: &TopologyNode, peer: &'a PeerView) -> Self {
        let is_exit = peer.routes.iter().any(|route| route.prefix_len() == 0);
        Self {
            routes: &peer.routes,
            addresses: unusual_addresses(node, &peer.addresses),
            cap_map: is_exit.then_some((SUGGEST_EXIT_NODE, None)).into_iter().collect(),
        }
    }
}

/// The addresses as prefixes, unless they are all that the node has.
fn unusual_addresses(node: &TopologyNode, shown: &[IpAddr]) -> Option<Vec<IpNet>> {
    let is_usual = node.facts.addresses().eq(shown.iter().copied());
    (!is_usual).then(|| shown.iter().copied().map(IpNet::from).collect())
}

/// The attributes that the node would not have without policy.
fn beyond_baseline<'a>(
    topology: &Topology,
    node: &TopologyNode,
    attributes: &'a Capabilities,
) -> CapMap<'a> {
    let role = topology.role(node);
    let is_baseline = |name: &str| match name {
        IS_OWNER => matches!(role, None | Some(Role::Owner)),
        IS_ADMIN => matches!(role, Some(Role::Admin | Role::Owner)),
        AUTO_UPDATE => topology.has_auto_update,
        _ => BASELINE.contains(&name),
    };
    attributes.iter().map(capability).filter(|(name, _)| !is_baseline(name)).collect()
}

fn capability<'a>(
    (name, values): (&'a Arc<str>, &Option<Vec<RawJson>>),
) -> (&'a str, Option<Vec<Box<RawValue>>>) {
    (name, values.as_ref().map(|values| values.iter().map(raw).collect()))
}

fn raw(value: &RawJson) -> Box<RawValue> {
    RawValue::from_string((*value.0).to_owned()).expect("invariant: the policy's values are JSON")
}

/// What a client is told about names while `MagicDNS` is on.
fn dns() -> Value {
    json!({
        "Domains": [DOMAIN],
        "Proxied": true,
        "Routes": {
            (format!("{DOMAIN}.")): null,
            "ts.net.": [{ "Addr": "199.247.155.53" }, { "Addr": "2620:111:8007::53" }],
        },
        "ExitNodeFilteredSet": [".ts.net", ".tailscale.net"],
    })
}

#[cfg(test)]
mod tests;
