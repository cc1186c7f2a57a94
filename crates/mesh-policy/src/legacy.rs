//! What stands in until streams are told of compiled policies: everybody sees everybody.

use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::{Node, NodeId, Tag, UserId};
use roaring::RoaringBitmap;

use crate::compiled::ClassId;
use crate::policy::PortRange;

/// The class of every node while everybody may reach everybody.
const EVERYBODY: ClassId = ClassId(0);

/// Who sees whom in one tailnet, kept up node by node. A clone shares what it holds.
#[derive(Debug, Clone)]
pub struct AllowAll {
    /// Members of the one class: every announced node.
    members: Arc<RoaringBitmap>,
    packet_filter: Arc<[FilterRule]>,
}

impl AllowAll {
    /// The policy of a tailnet that has none: everybody sees everybody, and everything is let in.
    pub fn allow_all() -> Self {
        Self { members: Arc::default(), packet_filter: Arc::new([FilterRule::allow_all()]) }
    }

    /// Takes in a node that is new or has changed.
    pub fn apply_node(&mut self, node: &Node) {
        if self.members.contains(node.id.0) == node.is_announced() {
            return;
        }
        let members = Arc::make_mut(&mut self.members);
        if node.is_announced() {
            members.insert(node.id.0);
        } else {
            members.remove(node.id.0);
        }
    }

    /// Forgets a node.
    pub fn apply_removal(&mut self, node: NodeId) {
        if self.members.contains(node.0) {
            Arc::make_mut(&mut self.members).remove(node.0);
        }
    }

    /// The class a node is in.
    pub fn class_of(&self, _node: &Node) -> ClassId {
        EVERYBODY
    }

    /// The nodes that a class sees, itself included: a viewer is not its own peer, the caller leaves it out.
    pub fn visible_to(&self, _class: ClassId) -> &RoaringBitmap {
        &self.members
    }

    /// What nodes of a class let in.
    pub fn packet_filter(&self, _class: ClassId) -> &[FilterRule] {
        &self.packet_filter
    }

    /// Whether a user may give a node this tag. Without a policy there are no tag owners.
    pub fn permits_tag(&self, _user: UserId, _tag: &Tag) -> bool {
        false
    }
}
/// Where packets come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Every peer.
    Any,
    /// Peers in a prefix.
    Prefix(IpNet),
}

/// Where packets go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The addresses, or every address.
    pub prefix: Option<IpNet>,
    /// The ports.
    pub ports: PortRange,
}

/// Lets packets from any of the sources to any of the destinations in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterRule {
    /// Who may send.
    pub sources: Vec<Source>,
    /// To where.
    pub destinations: Vec<Destination>,
}

impl FilterRule {
    /// Lets everything in.
    pub fn allow_all() -> Self {
        Self {
            sources: vec![Source::Any],
            destinations: vec![Destination { prefix: None, ports: PortRange::ALL }],
        }
    }
}
