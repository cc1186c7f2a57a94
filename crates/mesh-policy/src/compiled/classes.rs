//! Classes: which one a node belongs in, and which ones it sees.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use mesh_model::NodeId;
use roaring::RoaringBitmap;

use super::{
    Class, ClassId, CompiledPolicy, NO_ID, PlacedNode, Signature, UNPLACED, insert_into,
    remove_from,
};
use crate::delta::PolicyDelta;
use crate::facts::{NodeFacts, NodeOwner};
use crate::posture;
use crate::program::{Atom, Atoms, Postured, do_share};

impl CompiledPolicy {
    /// Puts a node into the class it belongs in; whether that is another one than before.
    pub(super) fn place(&mut self, id: NodeId, delta: &mut PolicyDelta) -> bool {
        let Some(node) = self.nodes.get(id.0).cloned().flatten() else { return false };
        let signature = self.signature_of(&node.facts);
        let known = self.signatures.get(&signature).copied();
        if known == Some(node.slot) {
            return false;
        }
        if node.slot != UNPLACED {
            self.leave(id, node.slot);
        }
        // Leaving may have emptied the class that held the signature, never the one it goes to.
        let slot = known.unwrap_or_else(|| self.open_class(signature));
        Arc::make_mut(self.members.get_mut(slot)).insert(id.0);
        *self.nodes.get_mut(id.0) = Some(PlacedNode { facts: node.facts.clone(), slot });
        self.name_moved(id, delta);
        // Another router may carry its routes for a `via` grant now.
        for route in node.facts.active_routes.iter().filter_map(|route| self.routes.get(route)) {
            delta.routers.extend(route.advertisers.iter().map(|router| router.0));
        }
        true
    }

    pub(super) fn leave(&mut self, id: NodeId, slot: u32) {
        let members = Arc::make_mut(self.members.get_mut(slot));
        members.remove(id.0);
        if members.is_empty() {
            self.close_class(slot);
        }
    }

    fn signature_of(&self, facts: &NodeFacts) -> Signature {
        let members = self.members_of(facts);
        let (mut hits, mut covered) = (members.clone(), Vec::new());
        if !facts.active_routes.is_empty() {
            for route in facts.subnet_routes() {
                let Some(route) = self.routes.get(&route) else { continue };
                hits.extend(route.atoms.iter());
                covered.extend(route.covered.iter().filter(|other| **other != facts.id));
            }
            if facts.is_exit_node() {
                hits.push(self.program.exit);
            }
            hits.extend(self.vias_routed_by(facts, &members));
            covered.sort_unstable();
            covered.dedup();
        }
        self.program.complete(&mut hits);
        let members: Atoms = members.into();
        Signature {
            hits: if *hits == *members { members.clone() } else { hits.into() },
            members,
            routes: facts.active_routes.clone(),
            covered: covered.into(),
            user: facts.user().filter(|_| self.program.has_self()),
        }
    }

    /// What selects a node, which need not be one of the tailnet's, but for `*`; sorted.
    pub(crate) fn members_of(&self, facts: &NodeFacts) -> Vec<Atom> {
        let program = &*self.program;
        let identities = &*self.identities;
        let mut atoms = Vec::new();
        match &facts.owner {
            NodeOwner::User(user) => {
                atoms.extend(identities.member);
                if let Some(user) = self.users.get(user) {
                    atoms.extend(&user.atoms);
                }
            }
            NodeOwner::Tags(tags) => {
                atoms.extend(identities.tagged);
                atoms.extend(tags.iter().filter_map(|tag| identities.tags.get(tag)));
            }
        }
        for address in facts.addresses() {
            program.literals.add_overlapping(address.into(), &mut atoms);
        }
        atoms.sort_unstable();
        atoms.dedup();
        let mut narrowed: Vec<u32> = program.postured_everybody.clone();
        for atom in &atoms {
            narrowed.extend_from_slice(program.postured_by.of(*atom));
        }
        narrowed.sort_unstable();
        narrowed.dedup();
        for number in narrowed {
            let Postured { atom, posture, .. } = &program.postured[number as usize];
            if self.meets(posture, facts) {
                // Beyond all selectors, and in order.
                atoms.push(*atom);
            }
        }
        atoms
    }

    fn meets(&self, posture: &str, facts: &NodeFacts) -> bool {
        let conditions = self.policy.postures.get(posture);
        conditions.is_some_and(|conditions| posture::meets(conditions, &facts.device))
    }

    fn open_class(&mut self, signature: Signature) -> u32 {
        let slot = self.free_slots.peek().copied().unwrap_or(self.slot_count);
        if slot == self.slot_count {
            self.slot_count += 1;
        } else {
            self.free_slots.pop_mut();
        }
        let program = self.program.clone();
        let sees_everybody = program.all_to_all
            || signature.hits.iter().any(|atom| {
                let marks = program.marks[*atom as usize];
                marks.reaches_everybody || marks.reached_by_everybody
            });
        let reaches_self = signature.user.is_some() && program.does_reach_self(&signature.members);
        if sees_everybody {
            Arc::make_mut(&mut self.everybody).insert(slot);
        } else if !self.is_in_bulk {
            let row = self.row_of(slot, &signature, reaches_self);
            self.rows.edit_each(row.iter().filter(|other| *other != slot), |row| {
                let row = Arc::make_mut(row);
                // A slot that was never used is beyond all others, where it is put in faster.
                if row.try_push(slot).is_err() {
                    row.insert(slot);
                }
            });
            *self.rows.get_mut(slot) = Arc::new(row);
        }
        for atom in &*signature.hits {
            Arc::make_mut(self.hit.get_mut(*atom)).insert(slot);
        }
        if let Some(user) = signature.user {
            insert_into(&mut self.user_classes, user, slot);
        }
        let signature = Arc::new(signature);
        self.signatures.insert_mut(signature.clone(), slot);
        // In bulk it is given when it is known which classes are others than before.
        let id = if self.is_in_bulk { NO_ID } else { self.next_id() };
        let class = Class {
            id,
            signature,
            sees_everybody,
            reaches_self,
            candidates: OnceLock::new(),
            hides_ipv4: OnceLock::new(),
        };
        *self.classes.get_mut(slot) = Some(Arc::new(class));
        *self.members.get_mut(slot) = Arc::default();
        slot
    }

    /// The classes that a class in the making sees, but those that see everybody.
    pub(super) fn row_of(
        &self,
        slot: u32,
        signature: &Signature,
        reaches_self: bool,
    ) -> RoaringBitmap {
        let program = &*self.program;
        let mut others: Vec<Atom> = Vec::new();
        for atom in &*signature.hits {
            others.extend_from_slice(program.reaches.of(*atom));
            others.extend_from_slice(program.reached_by.of(*atom));
        }
        others.sort_unstable();
        others.dedup();
        let mut seen = Slots::of_len(self.slot_count);
        for slots in others.iter().filter_map(|atom| self.hit.get(*atom)) {
            slots.iter().for_each(|slot| seen.insert(slot));
        }
        let own = signature.user.and_then(|user| self.user_classes.get(&user));
        for other in own.iter().flat_map(|slots| slots.iter()) {
            if reaches_self || self.class_at(other).is_some_and(|class| class.reaches_self) {
                seen.insert(other);
            }
        }
        let mut row = RoaringBitmap::from_sorted_iter(seen.into_iter())
            .expect("invariant: bits come in order");
        row -= &*self.everybody;
        if reaches_self || do_share(&signature.hits, &others) {
            row.insert(slot);
        }
        row
    }

    fn next_id(&self) -> ClassId {
        ClassId(self.class_ids.fetch_add(1, Ordering::Relaxed))
    }

    /// Gives ids to the classes that were made in bulk: those of before, by slot, and fresh ones.
    pub(super) fn give_ids(&mut self, kept: &[Option<ClassId>]) {
        for slot in 0..self.slot_count {
            let id = kept.get(slot as usize).copied().flatten().unwrap_or_else(|| self.next_id());
            if let Some(class) = self.classes.get_mut(slot).as_mut().and_then(Arc::get_mut) {
                class.id = id;
            }
        }
    }

    fn close_class(&mut self, slot: u32) {
        let Some(class) = self.classes.get_mut(slot).take() else { return };
        let signature = &class.signature;
        for atom in &*signature.hits {
            Arc::make_mut(self.hit.get_mut(*atom)).remove(slot);
        }
        if let Some(user) = signature.user {
            remove_from(&mut self.user_classes, user, slot);
        }
        if class.sees_everybody {
            Arc::make_mut(&mut self.everybody).remove(slot);
        }
        let row = std::mem::take(self.rows.get_mut(slot));
        self.rows.edit_each(row.iter().filter(|other| *other != slot), |row| {
            Arc::make_mut(row).remove(slot);
        });
        self.signatures.remove_mut(signature);
        self.free_slots.push_mut(slot);
    }
}

/// Slots as bits: to collect many of them, in any order.
#[derive(Debug, PartialEq)]
pub(crate) struct Slots(Vec<u64>);

impl Slots {
    pub(crate) fn of_len(len: u32) -> Self {
        Self(vec![0; len as usize / 64 + 1])
    }

    pub(crate) fn insert(&mut self, slot: u32) {
        self.0[slot as usize / 64] |= 1 << (slot % 64);
    }

    pub(crate) fn contains(&self, slot: u32) -> bool {
        self.0[slot as usize / 64] & 1 << (slot % 64) != 0
    }

    /// In ascending order.
    pub(super) fn into_iter(self) -> impl Iterator<Item = u32> {
        (0..).zip(self.0).flat_map(|(place, mut word): (u32, u64)| {
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros())?;
                word &= word - 1;
                Some(place * 64 + bit)
            })
        })
    }
}
