//! What policy says about one node: what it lets in, whom it sees, and what it is told of itself and of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use mesh_model::NodeId;

use crate::compiled::CompiledPolicy;
use crate::facts::NodeFacts;
use crate::policy::{PortRange, RawJson};

/// Capabilities with their values; a value list that is absent goes over the wire as `null`.
pub type Capabilities = BTreeMap<Arc<str>, Option<Vec<RawJson>>>;

/// Lets packets from any of the sources to any of the destinations in, or tells applications what sources may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterRule {
    /// Addresses, CIDRs, ranges `first-last`, or `*`; sorted as text, each once. Empty admits nobody.
    pub src_ips: Arc<[Arc<str>]>,
    /// To where; empty in a rule of capabilities.
    pub dst_ports: Vec<NetPortRange>,
    /// The IP protocol; none stands for the default set.
    pub ip_proto: Option<u8>,
    /// What applications are told.
    pub cap_grant: Vec<CapGrant>,
}

/// Addresses and ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetPortRange {
    /// An address, a CIDR, a range `first-last`, or `*`.
    pub ip: Arc<str>,
    /// Ports.
    pub ports: PortRange,
}

/// Capabilities towards some addresses of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapGrant {
    /// The node's addresses or routes that they hold for.
    pub dsts: Vec<IpNet>,
    /// The capabilities.
    pub cap_map: Arc<Capabilities>,
}

/// Who may log in to a node over SSH, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAccess {
    /// Addresses of source nodes; a node with several tags may stand here several times.
    pub principals: Arc<[IpAddr]>,
    /// Names asked for, and the names they log in as (`=`: the same, empty: refused).
    pub ssh_users: BTreeMap<Arc<str>, Arc<str>>,
    /// Whether a check comes first, and how long one lasts.
    pub check_period: Option<Duration>,
    /// Environment variables the client may set.
    pub accept_env: Arc<[Arc<str>]>,
    /// Addresses of nodes that record sessions.
    pub recorders: Vec<IpAddr>,
    /// Whether sessions that cannot be recorded are refused.
    pub enforce_recorder: bool,
}

/// A peer as one viewer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerView {
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Routes the viewer may use through it, exit routes included; sorted.
    pub routes: Vec<IpNet>,
}

/// Everything that policy says about one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeView {
    /// What it lets in, in order.
    pub packet_filter: Vec<FilterRule>,
    /// Who may log in, in order: the first match counts.
    pub ssh: Vec<SshAccess>,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Routes it is the primary of, sorted.
    pub primary_routes: Vec<IpNet>,
    /// Node attributes from policy.
    pub attributes: Capabilities,
    /// Whom it sees.
    pub peers: BTreeMap<NodeId, PeerView>,
}

impl CompiledPolicy {
    /// Everything that policy says about a node; `None` without such a node.
    pub fn view(&self, id: NodeId) -> Option<NodeView> {
        let peer = |peer: u32| {
            let peer = NodeId(peer);
            let view = PeerView {
                addresses: self.addresses_seen(id, peer),
                routes: self.routes_shown(id, peer),
            };
            (peer, view)
        };
        self.node(id)?;
        Some(NodeView {
            packet_filter: self.packet_filter(id),
            ssh: self.ssh_access(id),
            addresses: self.addresses_seen(id, id),
            primary_routes: self.primary_routes(id),
            attributes: self.attributes(id),
            peers: self.peers(id).iter().map(peer).collect(),
        })
    }

    /// The addresses of a node that a viewer is told of: no IPv4 if either of them does without.
    pub fn addresses_seen(&self, viewer: NodeId, node: NodeId) -> Vec<IpAddr> {
        let hides_ipv4 = self.hides_ipv4(viewer) || self.hides_ipv4(node);
        let addresses = self.node(node).into_iter().flat_map(NodeFacts::addresses);
        addresses.filter(|address| !hides_ipv4 || address.is_ipv6()).collect()
    }
}
