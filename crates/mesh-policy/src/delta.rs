//! What an event changed, and for whom.

use roaring::RoaringBitmap;

use crate::sources::SourceKeyId;

/// What may be different after events, as ids of nodes. What is not named is the same.
///
/// Whom a node sees is a matter of its class and of the nodes that moved: two nodes that did not move see each other
/// exactly if they did before.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PolicyDelta {
    /// Nodes that came, went, have other addresses or are in another class. A class that another policy lets see others
    /// than before, or other routes, is another class.
    pub moved: RoaringBitmap,
    /// Nodes whose routes may be shown to other viewers than before.
    pub routers: RoaringBitmap,
    /// Nodes whose packet filters may be other ones. Their rules may also stand in another order, which means nothing to
    /// them, without being named.
    pub filters: RoaringBitmap,
    /// Nodes that other logins over SSH may be let in to.
    pub ssh: RoaringBitmap,
    /// Nodes that may have other attributes, beside those that moved.
    pub attributes: RoaringBitmap,
    /// Sources of the program whose receivers are among `filters`, so that many events of a batch name them once.
    pub(crate) named: RoaringBitmap,
}

impl PolicyDelta {
    /// Adds what came later, if only of another program.
    pub fn merge(&mut self, later: &Self) {
        self.moved |= &later.moved;
        self.routers |= &later.routers;
        self.filters |= &later.filters;
        self.ssh |= &later.ssh;
        self.attributes |= &later.attributes;
        self.named.clear();
    }

    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        let Self { moved, routers, filters, ssh, attributes, named: _ } = self;
        [moved, routers, filters, ssh, attributes].iter().all(|set| set.is_empty())
    }

    /// Notes that the receivers of a source are to be named; whether they are not yet.
    pub(crate) fn is_first(&mut self, source: SourceKeyId) -> bool {
        self.named.insert(source)
    }
}
