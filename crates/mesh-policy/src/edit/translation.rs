//! What the atoms and sources of one program are called in another.

use std::collections::HashMap;
use std::sync::Arc;

use crate::compiled::CompiledPolicy;
use crate::policy::{Selector, SelectorId};
use crate::program::{Atom, Program, Via};
use crate::sources::{SourceKey, SourceKeyId};

/// From the numbers of one program to those of another. What the other has not, or says something else by, has none.
#[derive(Debug)]
pub(super) struct Translation {
    atoms: Vec<Option<Atom>>,
    keys: Vec<Option<SourceKeyId>>,
    /// Whether every atom has the same number in both.
    is_identity: bool,
}

impl Translation {
    pub(super) fn new(old: &CompiledPolicy, new: &CompiledPolicy) -> Self {
        let mut words = Self {
            atoms: vec![None; old.program.atom_count()],
            keys: Vec::new(),
            is_identity: false,
        };
        words.add_selectors(old, new);
        words.add_everybody(old, new);
        words.set(old.program.exit, Some(new.program.exit));
        words.add_postured(old, new);
        words.add_wides(old, new);
        words.add_keys(&old.program, &new.program);
        words.add_vias(&old.program, &new.program);
        words.is_identity = old.program.atom_count() == new.program.atom_count()
            && (0..).zip(&words.atoms).all(|(atom, new)| *new == Some(atom));
        words
    }

    fn set(&mut self, old: Atom, new: Option<Atom>) {
        self.atoms[old as usize] = new;
    }

    fn add_selectors(&mut self, old: &CompiledPolicy, new: &CompiledPolicy) {
        let (was, is) = (&old.policy().selectors, &new.policy().selectors);
        let kinds = (&old.program.kinds, &new.program.kinds);
        let is_same = |old: Atom, new: Atom| kinds.0[old as usize] == kinds.1[new as usize];
        let mut numbers: Option<HashMap<&Selector, Atom>> = None;
        for (atom, selector) in (0..).zip(was) {
            let known = if is.get(atom as usize) == Some(selector) {
                Some(atom)
            } else {
                let numbers = numbers.get_or_insert_with(|| is.iter().zip(0..).collect());
                numbers.get(selector).copied()
            };
            self.set(atom, known.filter(|new| is_same(atom, *new)));
        }
    }

    /// `*` is the same whether it is written or not.
    fn add_everybody(&mut self, old: &CompiledPolicy, new: &CompiledPolicy) {
        let any = |of: &CompiledPolicy| {
            let is_any = |atom: &&Atom| {
                let selector = of.policy().selectors.get(**atom as usize);
                selector.is_none_or(|selector| *selector == Selector::Any)
            };
            of.program.everybody.iter().find(is_any).copied()
        };
        if let Some(old) = any(old) {
            self.set(old, any(new));
        }
    }

    fn add_postured(&mut self, old: &CompiledPolicy, new: &CompiledPolicy) {
        let (was, is) = (&old.policy().postures, &new.policy().postures);
        let known: HashMap<(Atom, &Arc<str>), Atom> =
            new.program.postured.iter().map(|it| ((it.source, &it.posture), it.atom)).collect();
        for postured in &old.program.postured {
            let posture = &postured.posture;
            let is_same = was.get(posture) == is.get(posture);
            let source = self.atom(postured.source).filter(|_| is_same);
            let atom = source.and_then(|source| known.get(&(source, posture)).copied());
            self.set(postured.atom, atom);
        }
    }

    fn add_wides(&mut self, old: &CompiledPolicy, new: &CompiledPolicy) {
        for (sources, wide) in &old.program.wides {
            let sources = self.list(sources);
            let atom = sources.and_then(|sources| new.program.wides.get(&sources).copied());
            self.set(*wide, atom);
        }
    }

    fn add_keys(&mut self, old: &Program, new: &Program) {
        let key = |id| {
            let key = old.keys.get(id);
            let atoms = self.list(&key.atoms)?.into();
            new.keys.find(&SourceKey { atoms, ..key.clone() })
        };
        self.keys = old.keys.ids().map(key).collect();
    }

    fn add_vias(&mut self, old: &Program, new: &Program) {
        let is_same = |old: &Via, new: &Via| {
            old.from_everybody == new.from_everybody
                && self.are_same(&old.sources, &new.sources)
                && self.are_same(&old.tags, &new.tags)
                && self.are_same(&old.destinations, &new.destinations)
        };
        let start = common(old.vias.iter().zip(&new.vias), is_same);
        let rest = (old.vias[start..].iter().rev()).zip(new.vias[start..].iter().rev());
        let end = common(rest.clone(), is_same);
        let same: Vec<(Atom, Atom)> = (old.vias.iter().zip(&new.vias).take(start))
            .chain(rest.take(end))
            .map(|(old, new)| (old.routers, new.routers))
            .collect();
        for (old, new) in same {
            self.set(old, Some(new));
        }
    }

    /// Whether every atom has the same number in both.
    pub(super) fn is_identity(&self) -> bool {
        self.is_identity
    }

    /// What an atom is called.
    pub(super) fn atom(&self, old: Atom) -> Option<Atom> {
        self.atoms[old as usize]
    }

    /// All atoms that have a name in both.
    pub(super) fn atoms(&self) -> impl Iterator<Item = (Atom, Option<Atom>)> {
        (0..).zip(self.atoms.iter().copied())
    }

    /// Atoms, sorted; none if one of them has no name.
    fn list(&self, old: &[Atom]) -> Option<Vec<Atom>> {
        let mut atoms: Vec<Atom> =
            old.iter().map(|atom| self.atom(*atom)).collect::<Option<_>>()?;
        atoms.sort_unstable();
        Some(atoms)
    }

    /// Whether lists are the same, in order.
    pub(super) fn are_same(&self, old: &[Atom], new: &[Atom]) -> bool {
        old.len() == new.len()
            && old.iter().zip(new).all(|(old, new)| self.atom(*old) == Some(*new))
    }

    /// The same of selectors.
    pub(super) fn are_alike(&self, old: &[SelectorId], new: &[SelectorId]) -> bool {
        old.len() == new.len()
            && old.iter().zip(new).all(|(old, new)| self.atom(old.0) == Some(new.0))
    }

    /// All sources that are in both.
    pub(super) fn keys(&self) -> impl Iterator<Item = (SourceKeyId, SourceKeyId)> {
        (0..).zip(&self.keys).filter_map(|(old, new)| Some((old, (*new)?)))
    }

    /// Whether sources are the same.
    pub(super) fn is_same_key(&self, old: SourceKeyId, new: SourceKeyId) -> bool {
        self.keys[old as usize] == Some(new)
    }
}

/// What is on one of two lists only.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// On the old one, by the numbers of the old program.
    pub(super) lost: Vec<Atom>,
    /// The same by the numbers of the new one, as far as they have any.
    lost_in_new: Vec<Atom>,
    /// On the new one.
    pub(super) gained: Vec<Atom>,
}

impl Lists {
    pub(super) fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.gained.is_empty()
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.lost.extend(other.lost);
        self.lost_in_new.extend(other.lost_in_new);
        self.gained.extend(other.gained);
    }

    /// All of it by the numbers of the new program, as far as it has any.
    pub(super) fn in_new(&self) -> impl Iterator<Item = Atom> + '_ {
        self.lost_in_new.iter().chain(&self.gained).copied()
    }
}

/// What is on one of two lists only; the new one is sorted.
pub(super) fn differing(words: &Translation, old: &[Atom], new: &[Atom]) -> Lists {
    let mut lists = Lists::default();
    if words.is_identity && old == new {
        return lists;
    }
    let mut translated: Vec<Atom> = Vec::with_capacity(old.len());
    for atom in old {
        match words.atom(*atom) {
            Some(known) => {
                translated.push(known);
                if new.binary_search(&known).is_err() {
                    lists.lost.push(*atom);
                    lists.lost_in_new.push(known);
                }
            }
            None => lists.lost.push(*atom),
        }
    }
    translated.sort_unstable();
    let is_gained = |atom: &&Atom| translated.binary_search(atom).is_err();
    lists.gained.extend(new.iter().filter(is_gained));
    lists
}

/// What stands between the parts that two lists begin and end with alike.
pub(super) fn between<'a, T>(
    old: &'a [T],
    new: &'a [T],
    is_same: impl Fn(&T, &T) -> bool + Copy,
) -> (&'a [T], &'a [T]) {
    let start = common(old.iter().zip(new), is_same);
    let (old, new) = (&old[start..], &new[start..]);
    let end = common(old.iter().rev().zip(new.iter().rev()), is_same);
    (&old[..old.len() - end], &new[..new.len() - end])
}

fn common<'a, T: 'a>(
    pairs: impl Iterator<Item = (&'a T, &'a T)>,
    is_same: impl Fn(&T, &T) -> bool,
) -> usize {
    pairs.take_while(|(old, new)| is_same(old, new)).count()
}
