//! What an event changed.

use roaring::RoaringBitmap;

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
