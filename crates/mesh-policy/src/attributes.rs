//! Node attributes.

use mesh_model::NodeId;

use crate::compiled::CompiledPolicy;
use crate::view::Capabilities;

impl CompiledPolicy {
    /// The node attributes that policy gives a node.
    pub fn attributes(&self, _node: NodeId) -> Capabilities {
        Capabilities::new()
    }

    /// Whether a node is hidden from IPv4: it sees nobody's address, and nobody sees its.
    pub fn hides_ipv4(&self, _node: NodeId) -> bool {
        false
    }
}
