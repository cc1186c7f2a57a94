//! What another policy changes, and for whom.
//!
//! The two programs are compared by what they say, wherever that stands ([`Contrast`]). What they say otherwise hits few
//! classes, and only those are looked at more closely. Nodes that stay together are the same class under both policies;
//! the others move.

use std::collections::BTreeSet;

use mesh_model::NodeId;
use roaring::RoaringBitmap;

use crate::compiled::{ClassId, CompiledPolicy, Slots};
use crate::delta::PolicyDelta;
use crate::facts::NodeFacts;
use crate::policy::{NodeAttributes, SshRule};
use crate::program::{Atom, Kind};
use crate::sources::SourceKeyId;
use contrast::Contrast;
use translation::{Lists, Translation, differing};

mod contrast;
mod translation;

/// What may be different under another policy for the same nodes, and the classes that stay what they were.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) delta: PolicyDelta,
    /// Their ids, by slot under the new policy.
    pub(crate) kept: Vec<Option<ClassId>>,
}

/// A class that has nodes in common under both policies.
#[derive(Debug)]
struct Pair {
    old: u32,
    new: u32,
    /// What hits it under one policy only.
    hits: Lists,
}

/// Two policies for the same users and nodes.
struct Comparison<'a> {
    old: &'a CompiledPolicy,
    new: &'a CompiledPolicy,
    words: Translation,
    contrast: Contrast,
    pairs: Vec<Pair>,
    /// The class that a class of before is now, by slot.
    new_of_old: Vec<Option<u32>>,
    delta: PolicyDelta,
    /// Nodes of classes that were not there.
    unmatched: RoaringBitmap,
    /// Those, and nodes that are hit by something else.
    shifted: RoaringBitmap,
    /// Atoms of the new policy that have nodes which they had not, or the other way round.
    sources: BTreeSet<Atom>,
}

/// What two policies say otherwise, whoever the nodes are.
#[derive(Debug)]
pub(crate) struct Edit {
    words: Translation,
    contrast: Contrast,
}

impl Edit {
    /// Compares two programs and policies; their nodes and users play no part.
    pub(crate) fn new(old: &CompiledPolicy, new: &CompiledPolicy) -> Self {
        let words = Translation::new(old, new);
        let contrast = Contrast::new(old, new, &words);
        Self { words, contrast }
    }

    /// The atoms whose edges are others, if nothing but edges and filter rules is, and all atoms are what they were:
    /// then nodes that were hit by the same still are. Members of groups may be others all the same.
    pub(crate) fn edges_alone(&self) -> Option<RoaringBitmap> {
        let Contrast { old, new, concerns_all } = &self.contrast;
        let are_alone = self.words.is_identity()
            && !concerns_all
            && old.marked.is_empty()
            && new.marked.is_empty();
        are_alone.then(|| &old.linked | &new.linked)
    }

    /// The sources that both programs have, by their numbers in each.
    pub(crate) fn same_sources(&self) -> impl Iterator<Item = (SourceKeyId, SourceKeyId)> {
        self.words.keys()
    }
}

/// What is different between two compiled policies for the same users and nodes, by what they say otherwise.
pub(crate) fn difference(old: &CompiledPolicy, new: &CompiledPolicy, edit: Edit) -> Difference {
    let Edit { words, contrast } = edit;
    let mut comparison = Comparison {
        old,
        new,
        words,
        contrast,
        pairs: Vec::new(),
        new_of_old: vec![None; old.slot_count() as usize],
        delta: PolicyDelta::default(),
        unmatched: RoaringBitmap::new(),
        shifted: RoaringBitmap::new(),
        sources: BTreeSet::new(),
    };
    comparison.match_classes();
    comparison.find_shifted();
    comparison.name_routers();
    comparison.name_attributes();
    let kept = comparison.name_viewers();
    comparison.name_filters();
    comparison.name_ssh();
    Difference { delta: comparison.delta, kept }
}

impl Comparison<'_> {
    /// Finds what each class was before: the class most of its nodes were in, each at most once. All other nodes move.
    fn match_classes(&mut self) {
        let slots =
            |node: &NodeFacts| Some((self.old.slot_of(node.id)?, self.new.slot_of(node.id)?));
        let mut counts: foldhash::HashMap<(u32, u32), u32> = foldhash::HashMap::default();
        for slots in self.new.nodes().filter_map(slots) {
            *counts.entry(slots).or_default() += 1;
        }
        let mut candidates: Vec<_> = counts.into_iter().collect();
        candidates.sort_unstable_by_key(|(slots, count)| (std::cmp::Reverse(*count), *slots));
        let mut is_taken = vec![false; self.new.slot_count() as usize];
        for ((old, new), _) in candidates {
            let was = &mut self.new_of_old[old as usize];
            if was.is_none() && !is_taken[new as usize] {
                *was = Some(new);
                is_taken[new as usize] = true;
                let hits = Lists::default();
                self.pairs.push(Pair { old, new, hits });
            }
        }
        for node in self.new.nodes() {
            if slots(node).is_none_or(|(old, new)| self.new_of_old[old as usize] != Some(new)) {
                self.delta.moved.insert(node.id.0);
            }
        }
    }

    /// Finds the nodes that other atoms hit, and the sources whose addresses are others for it.
    fn find_shifted(&mut self) {
        for pair in &mut self.pairs {
            let (Some(old), Some(new)) =
                (self.old.signature_at(pair.old), self.new.signature_at(pair.new))
            else {
                continue;
            };
            let members = differing(&self.words, &old.members, &new.members);
            pair.hits = differing(&self.words, &old.hits, &new.hits);
            if members.is_empty() && pair.hits.is_empty() {
                continue;
            }
            self.sources.extend(members.in_new());
            pair.hits.extend(members);
            self.new.add_members(pair.new, &mut self.shifted);
        }
        self.unmatched.clone_from(&self.delta.moved);
        self.shifted |= &self.unmatched;
        let mut seen = BTreeSet::new();
        for id in self.delta.moved.iter().map(NodeId) {
            let (Some(old), Some(new)) = (self.old.class(id), self.new.class(id)) else { continue };
            if seen.insert((old.id, self.new.slot_of(id))) {
                let (old, new) = (&old.signature.members, &new.signature.members);
                self.sources.extend(differing(&self.words, old, new).in_new());
            }
        }
    }

    /// Names the routers whose routes are hit by something else, or have another primary.
    fn name_routers(&mut self) {
        for (prefix, new) in &self.new.routes {
            let Some(old) = self.old.routes.get(prefix) else { continue };
            let is_marked = |atom: &Atom| self.contrast.new.marked.contains(*atom);
            let covers_shifted = new.covered.iter().any(|id| self.shifted.contains(id.0));
            let is_other = covers_shifted
                || old.primary != new.primary
                || new.atoms.iter().any(is_marked)
                || !differing(&self.words, &old.atoms, &new.atoms).is_empty();
            let advertisers = || new.advertisers.iter().map(|id| id.0);
            if is_other {
                self.delta.routers.extend(advertisers());
            }
            if covers_shifted {
                self.delta.filters.extend(advertisers());
            }
        }
    }

    /// Names the nodes that have other attributes; whoever hides its IPv4 address from now on, or no longer, moves.
    fn name_attributes(&mut self) {
        let is_alike = |old: &NodeAttributes, new: &NodeAttributes| {
            (&old.attr, &old.app) == (&new.attr, &new.app)
                && self.words.are_alike(&old.target, &new.target)
        };
        let (was, is) = (self.old.policy(), self.new.policy());
        let flags = |policy: &crate::policy::Policy| {
            (policy.randomize_client_port, policy.disable_ipv4, policy.one_cgnat_route)
        };
        let are_alike = flags(was) == flags(is)
            && was.node_attrs.len() == is.node_attrs.len()
            && was.node_attrs.iter().zip(&is.node_attrs).all(|(old, new)| is_alike(old, new));
        let mut moved = RoaringBitmap::new();
        for pair in &self.pairs {
            let Some(node) = self.one_of(pair).filter(|_| !are_alike || !pair.hits.is_empty())
            else {
                continue;
            };
            if self.old.attributes(node) != self.new.attributes(node) {
                self.new.add_members(pair.new, &mut self.delta.attributes);
            }
            if self.old.hides_ipv4(node) != self.new.hides_ipv4(node) {
                self.new.add_members(pair.new, &mut moved);
            }
        }
        self.delta.moved |= moved;
    }

    /// A node that is in both classes of a pair.
    fn one_of(&self, pair: &Pair) -> Option<NodeId> {
        let mut nodes = RoaringBitmap::new();
        self.new.add_members(pair.new, &mut nodes);
        let mut nodes = nodes.into_iter().map(NodeId);
        nodes.find(|node| self.old.slot_of(*node) == Some(pair.old))
    }

    /// Names the nodes of classes that see others, or other routes, than before: they are other classes now. Returns the
    /// ids of those that are not, by slot.
    fn name_viewers(&mut self) -> Vec<Option<ClassId>> {
        let (old, new) = (self.old, self.new);
        let is_in = |of: &CompiledPolicy, slot| of.everybody().contains(slot);
        let concerns_all = self.contrast.concerns_all
            || self.pairs.iter().any(|pair| is_in(old, pair.old) != is_in(new, pair.new));
        let mut lasting = Slots::of_len(new.slot_count());
        self.pairs.iter().for_each(|pair| lasting.insert(pair.new));
        let routers: Vec<NodeId> = new.routers().iter().map(NodeId).collect();
        let hides_otherwise = self.delta.moved.clone();
        let mut kept = vec![None; new.slot_count() as usize];
        for pair in &self.pairs {
            let (Some(was), Some(is)) = (old.signature_at(pair.old), new.signature_at(pair.new))
            else {
                continue;
            };
            let is_candidate = concerns_all
                || !pair.hits.is_empty()
                || was.hits.iter().any(|atom| self.contrast.old.linked.contains(*atom))
                || is.hits.iter().any(|atom| self.contrast.new.linked.contains(*atom));
            let is_same = !is_candidate
                || self.has_same_row(pair, &lasting)
                    && self.one_of(pair).is_none_or(|node| self.has_same_routes(node, &routers));
            let stays = |node: NodeId| !hides_otherwise.contains(node.0);
            if is_same && self.one_of(pair).is_some_and(stays) {
                kept[pair.new as usize] = old.id_at(pair.old);
            } else {
                new.add_members(pair.new, &mut self.delta.moved);
            }
        }
        kept
    }

    /// Whether a class sees the same classes as before, of those that were there (`lasting`).
    fn has_same_row(&self, pair: &Pair, lasting: &Slots) -> bool {
        let (old, new) = (self.old, self.new);
        let was_everybody = old.everybody().contains(pair.old);
        let is_everybody = new.everybody().contains(pair.new);
        if was_everybody || is_everybody {
            return was_everybody == is_everybody;
        }
        let mut before = Slots::of_len(new.slot_count());
        let kept = old.seen_classes(pair.old).filter_map(|slot| self.new_of_old[slot as usize]);
        kept.for_each(|slot| before.insert(slot));
        let mut after = Slots::of_len(new.slot_count());
        new.seen_classes(pair.new)
            .filter(|slot| lasting.contains(*slot))
            .for_each(|slot| after.insert(slot));
        before == after
    }

    fn has_same_routes(&self, viewer: NodeId, routers: &[NodeId]) -> bool {
        let (old, new) = (self.old, self.new);
        let Some(sight) = new.sight(viewer) else { return true };
        routers
            .iter()
            .filter(|router| sight.sees(**router))
            .all(|router| old.routes_shown(viewer, *router) == new.routes_shown(viewer, *router))
    }

    /// Names the nodes that let others in.
    fn name_filters(&mut self) {
        let (old, new, contrast) = (self.old, self.new, &self.contrast);
        let filters = &mut self.delta.filters;
        *filters |= &self.unmatched;
        old.add_receivers(contrast.old.destinations.iter(), filters);
        new.add_receivers(contrast.new.destinations.iter(), filters);
        for (of, sources) in [(old, &contrast.old.own_sources), (new, &contrast.new.own_sources)] {
            let nodes: RoaringBitmap = if sources
                .iter()
                .any(|atom| *of.program.kind(*atom) == Kind::Everybody)
            {
                of.node_ids().clone()
            } else {
                sources.iter().fold(RoaringBitmap::new(), |nodes, atom| nodes | of.nodes_in(*atom))
            };
            for node in nodes.iter().filter_map(|id| of.node(NodeId(id))) {
                if let Some(own) = node.user().and_then(|user| of.nodes_of_user(user)) {
                    *filters |= own;
                }
            }
        }
        let is_received = |atom: &Atom| {
            !new.program.items_at(*atom).is_empty()
                || new.program.vias.iter().any(|via| via.routers == *atom)
        };
        for pair in &self.pairs {
            if pair.hits.in_new().any(|atom| is_received(&atom)) {
                new.add_members(pair.new, filters);
            }
        }
        for node in self.shifted.iter().filter_map(|id| new.node(NodeId(id))) {
            if let Some(user) = node.user() {
                new.name_own(user, &mut self.delta);
            }
        }
        let is_identity = |atom: &&Atom| *new.program.kind(**atom) == Kind::Identity;
        for atom in self.sources.iter().filter(is_identity) {
            new.name_receivers(*atom, &mut self.delta);
        }
        self.delta.named.clear();
    }

    /// Names the nodes that let others log in.
    fn name_ssh(&mut self) {
        let (was, is) = (&self.old.policy().ssh, &self.new.policy().ssh);
        if was.is_empty() && is.is_empty() {
            return;
        }
        let (old, new) = translation::between(was, is, |old, new| self.is_same_ssh(old, new));
        for rule in old {
            self.old.add_ssh_servers(rule, &mut self.delta.ssh);
        }
        for rule in new {
            self.new.add_ssh_servers(rule, &mut self.delta.ssh);
        }
        self.delta.ssh |= &self.shifted;
        let sources: Vec<Atom> = self.sources.iter().copied().collect();
        let owners: BTreeSet<_> =
            self.shifted.iter().filter_map(|id| self.new.node(NodeId(id))?.user()).collect();
        self.new.name_ssh(&sources, [None, None], &mut self.delta);
        for own in owners.into_iter().filter_map(|user| self.new.nodes_of_user(user)) {
            self.delta.ssh |= own;
        }
    }

    fn is_same_ssh(&self, old: &SshRule, new: &SshRule) -> bool {
        (old.action, &old.users, &old.accept_env, old.enforce_recorder)
            == (new.action, &new.users, &new.accept_env, new.enforce_recorder)
            && self.words.are_alike(&old.src, &new.src)
            && self.words.are_alike(&old.dst, &new.dst)
            && self.words.are_alike(&old.recorder, &new.recorder)
    }
}
