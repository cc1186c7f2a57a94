//! A policy worked out as far as it can be without nodes: who is the source of what.
//!
//! *Atoms* number everything that a node can be hit by: the policy's selectors first, then sources narrowed by a
//! posture, then what only destinations have: exit nodes, and the routers of each `via` grant. Edges lead from
//! source atoms to destination atoms. `*` on either side is not an edge but a mark on the other side, for it
//! hits everybody.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use foldhash::HashMap;
use ipnet::IpNet;
use roaring::RoaringBitmap;

use crate::policy::{Policy, Ports};
use crate::ranges::IpRanges;
use crate::sources::{SourceCache, SourceKeyId, SourceKeys};
use crate::view::Capabilities;

mod builder;
mod identities;
mod literals;
mod same;

use builder::Builder;
pub(crate) use identities::Identities;
pub(crate) use literals::Literals;
pub(crate) use same::has_same_rules;

/// Something a node can be hit by.
pub(crate) type Atom = u32;

/// Sorted, each once.
pub(crate) type Atoms = Arc<[Atom]>;

/// The Internet as exit nodes serve it. Source: POLICY 6.3 of the design, from captures.
pub(crate) static INTERNET: LazyLock<IpRanges> = LazyLock::new(|| {
    let prefixes = |texts: &[&str]| -> IpRanges {
        texts
            .iter()
            .map(|text| text.parse::<IpNet>().expect("invariant: a literal prefix"))
            .collect()
    };
    let mut internet = prefixes(&["0.0.0.0/0", "2000::/3"]);
    internet.remove(&prefixes(&[
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "100.64.0.0/10",
    ]));
    internet
});

/// What `*` stands for as a source: the addresses of tailnets, without the range that `ChromeOS` uses inside VMs.
pub(crate) static WILDCARD: LazyLock<IpRanges> = LazyLock::new(|| {
    let prefix = |text: &str| -> IpRanges {
        text.parse::<IpNet>().expect("invariant: a literal prefix").into()
    };
    let mut wildcard = prefix("100.64.0.0/10");
    wildcard.remove(&prefix("100.115.92.0/23"));
    wildcard.extend(&prefix("fd7a:115c:a1e0::/48"));
    wildcard
});

/// What a selector is to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nodes by who they belong to.
    Identity,
    /// Addresses.
    Literal(IpRanges),
    /// `*` and `autogroup:danger-all`: everybody.
    Everybody,
    /// `autogroup:self`.
    SelfNodes,
    /// `autogroup:internet`.
    Internet,
}

/// What a rule lets in or tells.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    /// Packets.
    Ports {
        /// None: the default set.
        proto: Option<u8>,
        ports: Ports,
    },
    /// Capabilities of the sources.
    Capabilities(Arc<Capabilities>),
    /// The other direction of capabilities: what the rule's destinations are to its sources.
    Companion(Arc<Capabilities>),
}

/// One filter rule of the tailnet, before it is merged with others and reduced to a node. Its place in
/// [`Program::items`] is its place in every filter.
#[derive(Debug)]
pub(crate) struct Item {
    /// Whose packets it lets in. For a companion: the written rule's destinations.
    pub(crate) sources: SourceKeyId,
    /// To where, in [`Program::destinations`]. For a companion: the written rule's sources.
    pub(crate) destinations: Range<u32>,
    pub(crate) effect: Effect,
    pub(crate) scope: Scope,
}

/// Where a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// On every node that a destination hits.
    Tailnet,
    /// Among the nodes of each user.
    SelfNodes,
    /// On the routers of a `via` grant, an index into [`Program::vias`].
    Via(u32),
}

/// A `via` grant.
#[derive(Debug)]
pub(crate) struct Via {
    /// Atoms of its sources.
    pub(crate) sources: Vec<Atom>,
    /// Whether `*` is a source.
    pub(crate) from_everybody: bool,
    /// Tag selectors of its routers.
    pub(crate) tags: Vec<Atom>,
    pub(crate) destinations: Vec<Atom>,
    /// The atom of its routers.
    pub(crate) routers: Atom,
}

/// A source narrowed by a posture.
#[derive(Debug)]
pub(crate) struct Postured {
    pub(crate) atom: Atom,
    /// The source as written.
    pub(crate) source: Atom,
    /// The name of the posture.
    pub(crate) posture: Arc<str>,
}

/// What edges start or end at `*`, and what else is known of an atom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Marks {
    /// As a source it reaches everybody.
    pub(crate) reaches_everybody: bool,
    /// As a destination it is reached by everybody.
    pub(crate) reached_by_everybody: bool,
    /// As a source it reaches the whole Internet.
    pub(crate) reaches_internet: bool,
    /// As a source it reaches the whole Internet, and not only as a part of everybody.
    pub(crate) reaches_internet_by_name: bool,
    /// As a source it reaches its user's own nodes.
    pub(crate) reaches_self: bool,
}

/// Lists of atoms by atom, or of what else is numbered.
#[derive(Debug, Default)]
pub(crate) struct Adjacency {
    starts: Vec<u32>,
    ends: Vec<Atom>,
}

impl Adjacency {
    /// What follows a number stands in the order of the edges.
    fn new(count: usize, edges: impl Iterator<Item = (u32, u32)> + Clone) -> Self {
        let mut starts = vec![0; count + 1];
        let mut edge_count = 0;
        for (from, _) in edges.clone() {
            starts[from as usize + 1] += 1;
            edge_count += 1;
        }
        for index in 0..count {
            starts[index + 1] += starts[index];
        }
        let (mut places, mut ends) = (starts.clone(), vec![0; edge_count]);
        for (from, to) in edges {
            let place = &mut places[from as usize];
            ends[*place as usize] = to;
            *place += 1;
        }
        Self { starts, ends }
    }

    /// The same the other way round.
    fn reversed(&self, count: usize) -> Self {
        Self::new(count, self.edges().map(|(from, to)| (to, from)))
    }

    /// All edges, by where they begin.
    pub(crate) fn edges(&self) -> impl Iterator<Item = (u32, u32)> + Clone {
        let froms = (0..).zip(self.starts.windows(2));
        froms.flat_map(|(from, bounds)| {
            self.ends[bounds[0] as usize..bounds[1] as usize].iter().map(move |to| (from, *to))
        })
    }

    /// What follows an atom.
    pub(crate) fn of(&self, atom: Atom) -> &[Atom] {
        let index = atom as usize;
        &self.ends[self.starts[index] as usize..self.starts[index + 1] as usize]
    }
}

fn sorted(mut edges: Vec<(Atom, Atom)>) -> Vec<(Atom, Atom)> {
    edges.sort_unstable();
    edges.dedup();
    edges
}

/// Who may be the source or destination of what, for one policy. Members of groups are not part of it, so that it
/// outlives their changes.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) keys: SourceKeys,
    pub(crate) items: Vec<Item>,
    destinations: Vec<Atom>,
    /// Items and numbers of destinations by destination atom, for rules that hold in the whole tailnet.
    items_by_atom: Vec<Vec<(u32, u32)>>,
    /// Items that hold among users' own nodes, or on routers of `via` grants only.
    pub(crate) special_items: Vec<u32>,
    has_self: bool,
    pub(crate) vias: Vec<Via>,
    pub(crate) marks: Vec<Marks>,
    /// `*` reaches everybody.
    pub(crate) all_to_all: bool,
    /// `*` reaches the whole Internet.
    pub(crate) everybody_reaches_internet: bool,
    /// `*` reaches the whole Internet, and not only as a part of everybody.
    pub(crate) everybody_reaches_internet_by_name: bool,
    /// `*` reaches its user's own nodes.
    pub(crate) everybody_reaches_self: bool,
    /// From sources to destinations.
    pub(crate) reaches: Adjacency,
    /// From destinations to sources.
    pub(crate) reached_by: Adjacency,
    /// The atom of exit nodes.
    pub(crate) exit: Atom,
    /// Literals that lie inside the Internet: exit nodes let their packets in.
    pub(crate) inside_internet: Vec<Atom>,
    /// Atoms that are everybody: `*`, named or implied, and `autogroup:danger-all`.
    pub(crate) everybody: Vec<Atom>,
    pub(crate) literals: Literals,
    /// Sources narrowed by postures, by atom.
    pub(crate) postured: Vec<Postured>,
    /// Which of them an atom is written in; those of `*` are in `postured_everybody`.
    pub(crate) postured_by: Adjacency,
    pub(crate) postured_everybody: Vec<u32>,
    /// From atoms to those that stand for all sources of a rule.
    widened: Adjacency,
    /// Those that stand for all sources of a rule, by these.
    pub(crate) wides: HashMap<Vec<Atom>, Atom>,
    /// From atoms to the sources that they are part of, as [`SourceKeyId`].
    keys_of: Adjacency,
    /// From sources to where their rules lead: destinations, and the routers of `via` grants.
    destinations_by_key: Adjacency,
    /// Sources that `*` is part of.
    pub(crate) keys_of_everybody: Vec<SourceKeyId>,
    /// Destinations of companions.
    pub(crate) companions: RoaringBitmap,
    pub(crate) cache: SourceCache,
    stamps: AtomicU64,
}

impl Program {
    pub(crate) fn new(policy: &Policy) -> Self {
        Builder::new(policy).build()
    }

    /// A number that was never given before, also not in a draft that came to nothing.
    pub(crate) fn next_stamp(&self) -> u64 {
        self.stamps.fetch_add(1, Ordering::Relaxed)
    }

    /// Goes on where the stamps of an earlier program have come to.
    pub(crate) fn continue_stamps(&self, earlier: &Self) {
        self.stamps.fetch_max(earlier.next_stamp(), Ordering::Relaxed);
    }

    /// How many atoms there are.
    pub(crate) fn atom_count(&self) -> usize {
        self.marks.len()
    }

    /// What an atom is; those beyond the selectors are of identity, but for the `*` of a rule that is not written.
    pub(crate) fn kind(&self, atom: Atom) -> &Kind {
        let unnamed =
            if self.everybody.contains(&atom) { &Kind::Everybody } else { &Kind::Identity };
        self.kinds.get(atom as usize).unwrap_or(unnamed)
    }

    pub(crate) fn has_self(&self) -> bool {
        self.has_self
    }

    /// The destinations of an item.
    pub(crate) fn destinations_of(&self, item: &Item) -> &[Atom] {
        &self.destinations[item.destinations.start as usize..item.destinations.end as usize]
    }

    /// A destination by its number.
    pub(crate) fn destination(&self, number: u32) -> Atom {
        self.destinations[number as usize]
    }

    /// Items and numbers of destinations that an atom is.
    pub(crate) fn items_at(&self, atom: Atom) -> &[(u32, u32)] {
        self.items_by_atom.get(atom as usize).map_or(&[], Vec::as_slice)
    }

    /// The sources that an atom is part of.
    pub(crate) fn keys_of(&self, atom: Atom) -> &[SourceKeyId] {
        self.keys_of.of(atom)
    }

    /// Where the rules of a source lead, but for those among users' own nodes.
    pub(crate) fn destinations_by_key(&self, key: SourceKeyId) -> &[Atom] {
        self.destinations_by_key.of(key)
    }

    /// The narrowed source that an atom is, if it is one.
    pub(crate) fn postured_at(&self, atom: Atom) -> Option<&Postured> {
        let place = self.postured.binary_search_by_key(&atom, |narrowed| narrowed.atom).ok()?;
        self.postured.get(place)
    }

    /// Sorts atoms and adds those that stand for rules they are sources of.
    pub(crate) fn complete(&self, atoms: &mut Vec<Atom>) {
        for index in 0..atoms.len() {
            atoms.extend_from_slice(self.widened.of(atoms[index]));
        }
        atoms.sort_unstable();
        atoms.dedup();
    }

    /// Whether something hit by `from` reaches something hit by `to`.
    pub(crate) fn does_reach(&self, from: &[Atom], to: &[Atom]) -> bool {
        let marks = |atom: &Atom| self.marks[*atom as usize];
        self.all_to_all
            || from.iter().any(|atom| marks(atom).reaches_everybody)
            || to.iter().any(|atom| marks(atom).reached_by_everybody)
            || from.iter().any(|atom| do_share(self.reaches.of(*atom), to))
    }

    /// The same, but for rules whose destination is `*`.
    pub(crate) fn does_reach_by_name(&self, from: &[Atom], to: &[Atom]) -> bool {
        to.iter().any(|atom| self.marks[*atom as usize].reached_by_everybody)
            || from.iter().any(|atom| do_share(self.reaches.of(*atom), to))
    }

    /// Whether what an atom stands for are nodes by who they belong to, also inside the routes of others: postures say
    /// nothing about addresses.
    pub(crate) fn is_identity(&self, atom: Atom) -> bool {
        self.kinds.get(atom as usize) == Some(&Kind::Identity)
    }

    /// Whether something hit by these reaches the whole Internet.
    pub(crate) fn does_reach_internet(&self, from: &[Atom]) -> bool {
        self.everybody_reaches_internet
            || from.iter().any(|atom| self.marks[*atom as usize].reaches_internet)
    }

    /// The same, but for rules whose destination is `*` alone.
    pub(crate) fn does_reach_internet_by_name(&self, from: &[Atom]) -> bool {
        self.everybody_reaches_internet_by_name
            || from.iter().any(|atom| self.marks[*atom as usize].reaches_internet_by_name)
    }

    /// Whether one of these reaches its user's own nodes.
    pub(crate) fn does_reach_self(&self, from: &[Atom]) -> bool {
        self.everybody_reaches_self
            || from.iter().any(|atom| self.marks[*atom as usize].reaches_self)
    }
}

/// Whether two sorted lists have an item in common.
pub(crate) fn do_share(one: &[Atom], other: &[Atom]) -> bool {
    let (short, long) = if one.len() < other.len() { (one, other) } else { (other, one) };
    if short.len() * 8 < long.len() {
        return short.iter().any(|atom| long.binary_search(atom).is_ok());
    }
    let (mut left, mut right) = (short.iter().peekable(), long.iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        match a.cmp(b) {
            std::cmp::Ordering::Less => left.next(),
            std::cmp::Ordering::Greater => right.next(),
            std::cmp::Ordering::Equal => return true,
        };
    }
    false
}
