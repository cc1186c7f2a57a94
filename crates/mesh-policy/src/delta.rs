//! What an event changed.

use mesh_model::NodeId;
use roaring::RoaringBitmap;

use crate::compiled::CompiledPolicy;
use crate::facts::NodeFacts;
use crate::policy::{SelectorId, SshUser};

/// What may be different after events. What is not named is the same.
///
/// Whom a node sees, and what it lets in, is a matter of its class and of the nodes that moved: two nodes that did not
/// move see each other exactly if they did before.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PolicyDelta {
    /// The policy is another one: everything may be different.
    pub recompiled: bool,
    /// Ids of nodes that came, went, or are in another class.
    pub moved: RoaringBitmap,
    /// Selectors whose addresses are different, as numbers that the engine knows what to do with.
    pub sources: RoaringBitmap,
    /// The set of active subnet routes is another one, which is part of what `*` stands for as a source.
    pub routes: bool,
    /// Ids of nodes whose routes may be shown to other viewers than before.
    pub routers: RoaringBitmap,
    /// A user came, went or changed.
    pub users: bool,
}

impl PolicyDelta {
    /// Adds what came later.
    pub fn merge(&mut self, later: &Self) {
        self.recompiled |= later.recompiled;
        self.moved |= &later.moved;
        self.sources |= &later.sources;
        self.routes |= later.routes;
        self.routers |= &later.routers;
        self.users |= later.users;
    }

    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl CompiledPolicy {
    /// What may be different under another policy for the same users and nodes.
    pub(crate) fn difference(&self, to: &Self) -> PolicyDelta {
        let hides_otherwise =
            |node: &&NodeFacts| self.hides_ipv4(node.id) != to.hides_ipv4(node.id);
        let is_router = |node: &&NodeFacts| !node.active_routes.is_empty();
        let ids = |node: &NodeFacts| node.id.0;
        PolicyDelta {
            recompiled: true,
            moved: to.nodes().filter(hides_otherwise).map(ids).collect(),
            sources: RoaringBitmap::new(),
            routes: true,
            routers: to.nodes().filter(is_router).map(ids).collect(),
            users: true,
        }
    }

    /// Whether who may log in to a node over SSH may be another one after a delta.
    pub fn ssh_may_differ(from: &Self, to: &Self, delta: &PolicyDelta, node: NodeId) -> bool {
        let rules = &to.policy().ssh;
        if delta.recompiled || delta.moved.contains(node.0) {
            return !rules.is_empty() || !from.policy().ssh.is_empty();
        }
        let has_changed = |source: &SelectorId| delta.sources.contains(source.0);
        rules.iter().any(|rule| {
            let by_login = rule.users.iter().any(|user| matches!(user, SshUser::LocalPart(_)));
            by_login && delta.users || rule.src.iter().chain(&rule.recorder).any(has_changed)
        })
    }
}
