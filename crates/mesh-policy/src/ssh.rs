//! Who may log in over SSH.

use mesh_model::NodeId;

use crate::compiled::CompiledPolicy;
use crate::view::SshAccess;

impl CompiledPolicy {
    /// Who may log in to a node over SSH, in order.
    pub fn ssh_access(&self, _node: NodeId) -> Vec<SshAccess> {
        Vec::new()
    }
}
