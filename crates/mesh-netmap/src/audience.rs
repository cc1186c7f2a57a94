//! Whom a step concerns, so that nobody else has to be asked.

use mesh_model::NodeId;
use roaring::RoaringBitmap;

use crate::Step;

/// Of how many nodes it is worked out who sees them. Of more than that, everybody is asked.
const NODES_MAX: u64 = 64;

/// Viewers to whom a step may make a difference: [`Step::tell`] has nothing for any other.
#[derive(Debug, Clone, PartialEq)]
pub enum Audience {
    /// Perhaps all of them.
    Everybody,
    /// At most these, by id.
    Some(RoaringBitmap),
}

impl Audience {
    /// Whether a viewer belongs to it.
    pub fn contains(&self, viewer: NodeId) -> bool {
        match self {
            Self::Everybody => true,
            Self::Some(viewers) => viewers.contains(viewer.0),
        }
    }
}

impl Step<'_> {
    /// Works out whom the step may concern. The work is a matter of what changed and of who sees that.
    pub fn audience(self) -> Audience {
        let (changes, policy) = (self.changes, &self.changes.policy);
        let shown = &changes.nodes | &policy.routers;
        let moved = &policy.moved - &shown;
        let is_wide = changes.key_ran_out || !changes.users.is_empty();
        if is_wide || shown.len() + moved.len() > NODES_MAX {
            return Audience::Everybody;
        }
        let own = [&policy.moved, &changes.taken_over, &policy.filters, &policy.ssh];
        let mut viewers = own.into_iter().fold(shown.clone(), |all, set| all | set);
        for node in shown.into_iter().map(NodeId) {
            let [before, after] = self.viewers_of(node);
            viewers |= before | after;
        }
        // What is shown of these is the same, so only who came to see them or lost sight of them minds.
        for node in moved.into_iter().map(NodeId) {
            let [before, after] = self.viewers_of(node);
            let hides_alike = self.from.policy.hides_ipv4(node) == self.to.policy.hides_ipv4(node);
            viewers |= if hides_alike { before ^ after } else { before | after };
        }
        Audience::Some(viewers)
    }

    /// Who sees a node before and after, for visibility is mutual.
    fn viewers_of(self, node: NodeId) -> [RoaringBitmap; 2] {
        [self.from, self.to].map(|snapshot| snapshot.policy.peers_of_class(node))
    }
}
