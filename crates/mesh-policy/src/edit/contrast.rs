//! Where two programs say something else, whatever the numbers and places of what they say.

use std::collections::BTreeSet;

use roaring::RoaringBitmap;

use super::translation::{Translation, between, differing};
use crate::compiled::CompiledPolicy;
use crate::program::{Atom, Effect, Item, Marks, Program, Scope};

/// What only one of two programs says.
#[derive(Debug, Default)]
pub(super) struct Contrast {
    /// By the numbers of the old program.
    pub(super) old: Side,
    /// By the numbers of the new one.
    pub(super) new: Side,
    /// Whether all classes may see others, or other routes.
    pub(super) concerns_all: bool,
}

/// The atoms about which something else is said.
#[derive(Debug, Default)]
pub(super) struct Side {
    /// Where edges begin and end that the other program has not, and those of `marked`.
    pub(super) linked: RoaringBitmap,
    /// Those that have other marks.
    pub(super) marked: RoaringBitmap,
    /// Destinations of other filter rules.
    pub(super) destinations: RoaringBitmap,
    /// Sources of rules among users' own nodes that the other program has not.
    pub(super) own_sources: BTreeSet<Atom>,
}

impl Contrast {
    pub(super) fn new(old: &CompiledPolicy, new: &CompiledPolicy, words: &Translation) -> Self {
        let (old, new) = (&*old.program, &*new.program);
        let mut contrast = Self::default();
        contrast.compare_edges(old, new, words);
        contrast.compare_marks(old, new, words);
        contrast.compare_items(old, new, words);
        contrast.compare_special_items(old, new, words);
        contrast.concerns_all |= globals(old) != globals(new);
        contrast
    }

    fn compare_edges(&mut self, old: &Program, new: &Program, words: &Translation) {
        let mut known = vec![false; new.atom_count()];
        for (was, is) in words.atoms() {
            let before = old.reaches.of(was);
            let Some(is) = is else {
                self.old.link(was, before);
                continue;
            };
            known[is as usize] = true;
            let lists = differing(words, before, new.reaches.of(is));
            self.old.link(was, &lists.lost);
            self.new.link(is, &lists.gained);
        }
        for atom in (0..).zip(known).filter(|(_, is_known)| !is_known).map(|(atom, _)| atom) {
            self.new.link(atom, new.reaches.of(atom));
        }
    }

    fn compare_marks(&mut self, old: &Program, new: &Program, words: &Translation) {
        let mut known = vec![false; new.atom_count()];
        for (was, is) in words.atoms() {
            let before = old.marks[was as usize];
            let after = is.map(|is| new.marks[is as usize]).unwrap_or_default();
            if before != after {
                self.old.mark(was);
            }
            if let Some(is) = is {
                known[is as usize] = true;
                if before != after {
                    self.new.mark(is);
                }
            }
        }
        for (atom, marks) in (0..).zip(&new.marks) {
            if !known[atom as usize] && *marks != Marks::default() {
                self.new.mark(atom);
            }
        }
        let is_new = |routers: Atom| !known[routers as usize];
        let is_old = |routers: Atom| words.atom(routers).is_none();
        self.concerns_all = old.vias.iter().any(|via| via.from_everybody && is_old(via.routers))
            || new.vias.iter().any(|via| via.from_everybody && is_new(via.routers));
    }

    /// Rules of the whole tailnet: destinations whose rules are others, or stand in another order among those that are the
    /// same.
    fn compare_items(&mut self, old: &Program, new: &Program, words: &Translation) {
        let mut known = vec![false; new.atom_count()];
        let mut places: Vec<Option<u32>> = vec![None; old.items.len()];
        for (was, is) in words.atoms() {
            let before = old.items_at(was);
            let Some(is) = is else {
                if !before.is_empty() {
                    self.old.destinations.insert(was);
                }
                continue;
            };
            known[is as usize] = true;
            let after = new.items_at(is);
            let mut find = |was: u32, is: u32| {
                let place = &mut places[was as usize];
                *place == Some(is)
                    || place.is_none()
                        && is_same_item(old, new, words, was as usize, is as usize)
                        && place.insert(is) == &is
            };
            let is_same = before.len() == after.len()
                && before.iter().zip(after).all(|((was, _), (is, _))| find(*was, *is));
            if !is_same {
                self.old.destinations.insert(was);
                self.new.destinations.insert(is);
            }
        }
        for (atom, is_known) in (0..).zip(known) {
            if !is_known && !new.items_at(atom).is_empty() {
                self.new.destinations.insert(atom);
            }
        }
        for number in out_of_order(&places) {
            self.old.destinations.extend(old.destinations_of(&old.items[number]));
        }
    }

    fn compare_special_items(&mut self, old: &Program, new: &Program, words: &Translation) {
        let (was, is) = between(&old.special_items, &new.special_items, |was, is| {
            is_same_item(old, new, words, *was as usize, *is as usize)
        });
        self.old.receive(old, was);
        self.new.receive(new, is);
    }
}

impl Side {
    fn link(&mut self, from: Atom, to: &[Atom]) {
        if !to.is_empty() {
            self.linked.insert(from);
            self.linked.extend(to);
        }
    }

    fn mark(&mut self, atom: Atom) {
        self.linked.insert(atom);
        self.marked.insert(atom);
    }

    /// Takes in rules that hold on some nodes only.
    fn receive(&mut self, program: &Program, items: &[u32]) {
        for item in items.iter().map(|number| &program.items[*number as usize]) {
            match item.scope {
                Scope::Tailnet => {}
                Scope::Via(via) => {
                    self.destinations.insert(program.vias[via as usize].routers);
                }
                Scope::SelfNodes => {
                    let sources = match item.effect {
                        Effect::Companion(_) => program.destinations_of(item),
                        Effect::Ports { .. } | Effect::Capabilities(_) => {
                            &program.keys.get(item.sources).atoms
                        }
                    };
                    self.own_sources.extend(sources);
                }
            }
        }
    }
}

fn globals(program: &Program) -> [bool; 5] {
    [
        program.all_to_all,
        program.everybody_reaches_internet,
        program.everybody_reaches_internet_by_name,
        program.everybody_reaches_self,
        program.has_self(),
    ]
}

/// Whether two rules say the same, as far as one of their destinations is concerned that is the same.
fn is_same_item(old: &Program, new: &Program, words: &Translation, was: usize, is: usize) -> bool {
    let (was, is): (&Item, &Item) = (&old.items[was], &new.items[is]);
    let is_same_scope = match (was.scope, is.scope) {
        (Scope::Via(was), Scope::Via(is)) => {
            let routers = |program: &Program, via: u32| program.vias[via as usize].routers;
            words.atom(routers(old, was)) == Some(routers(new, is))
        }
        (was, is) => was == is,
    };
    let is_one_set = matches!(was.effect, Effect::Companion(_));
    is_same_scope
        && words.is_same_key(was.sources, is.sources)
        && was.effect == is.effect
        && (!is_one_set || words.are_same(old.destinations_of(was), new.destinations_of(is)))
}

/// The fewest items that one has to leave out for the places of all others to ascend.
fn out_of_order(places: &[Option<u32>]) -> Vec<usize> {
    let known = places.iter().enumerate().filter_map(|(number, place)| Some((number, (*place)?)));
    if known.clone().is_sorted_by_key(|(_, place)| place) {
        return Vec::new();
    }
    // For each length the ascending row that ends lowest, by the item it ends with; and before each item the one that it
    // follows in its row.
    let (mut ends, mut before): (Vec<(u32, usize)>, Vec<Option<usize>>) =
        (Vec::new(), vec![None; places.len()]);
    for (number, place) in known.clone() {
        let length = ends.partition_point(|(end, _)| *end < place);
        before[number] = length.checked_sub(1).map(|shorter| ends[shorter].1);
        match ends.get_mut(length) {
            Some(end) => *end = (place, number),
            None => ends.push((place, number)),
        }
    }
    let row = std::iter::successors(ends.last().map(|(_, number)| *number), |it| before[*it]);
    let row: BTreeSet<usize> = row.collect();
    known.map(|(number, _)| number).filter(|number| !row.contains(number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(places: &[u32], expected: &[usize]) {
        let places: Vec<Option<u32>> = places.iter().copied().map(Some).collect();
        assert_eq!(out_of_order(&places), expected);
    }

    #[test]
    fn what_moved_is_out_of_order_and_nothing_else() {
        check(&[], &[]);
        check(&[1, 2, 5, 7], &[]);
        check(&[1, 9, 2, 3], &[1]);
        check(&[2, 3, 4, 1], &[3]);
        check(&[4, 1, 2, 3, 9, 8], &[0, 4]);
    }
}
