//! A bounded map that keeps what was used last.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

use foldhash::fast::RandomState;

/// A map that keeps at least the `generation` entries used last, and at most twice as many.
///
/// What is used goes into the young map; when that is full, it becomes the old one, and what was old and not used
/// since is forgotten. So the order of use costs no list, only the move of an entry from old to young.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    /// At most `generation` entries, none of which is in `old`.
    young: HashMap<K, V, RandomState>,
    old: HashMap<K, V, RandomState>,
    generation: usize,
}

impl<K: Copy + Eq + Hash, V> Recent<K, V> {
    pub(crate) fn new(generation: usize) -> Self {
        Self { young: HashMap::default(), old: HashMap::default(), generation }
    }

    /// The entry, which is not used by that.
    pub(crate) fn peek(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// The entry, made if there is none, which is used by that.
    pub(crate) fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key).unwrap_or_else(make);
            if self.young.len() >= self.generation {
                mem::swap(&mut self.young, &mut self.old);
                self.young.clear();
            }
            self.young.insert(key, value);
        }
        self.young.get_mut(&key).expect("invariant: it was young or became so")
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K) -> bool) {
        self.young.retain(|key, _| keep(key));
        self.old.retain(|key, _| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GENERATION: usize = 4;

    #[derive(Debug, Clone)]
    enum Step {
        Use(u8),
        Remove(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![9 => (0..16_u8).prop_map(Step::Use), 1 => (0..16_u8).prop_map(Step::Remove)]
    }

    proptest! {
        #[test]
        fn the_entries_used_last_are_kept_and_never_too_many(
            steps in prop::collection::vec(step(), 0..64),
        ) {
            let mut recent = Recent::new(GENERATION);
            // In order of use; a key that was removed keeps its place, without a value.
            let mut naive: Vec<(u8, Option<usize>)> = Vec::new();
            for (made, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Use(key) => {
                        let kept = recent.peek(&key).copied();
                        let value = *recent.get_or_insert_with(key, || made);
                        prop_assert_eq!(value, kept.unwrap_or(made));
                        naive.retain(|(known, _)| *known != key);
                        naive.push((key, Some(value)));
                    }
                    Step::Remove(removed) => {
                        recent.retain(|key| *key != removed);
                        let known = naive.iter_mut().find(|(key, _)| *key == removed);
                        if let Some((_, value)) = known {
                            *value = None;
                        }
                    }
                }
                for (key, value) in naive.iter().rev().take(GENERATION) {
                    prop_assert_eq!(recent.peek(key), value.as_ref());
                }
                for (key, value) in &naive {
                    prop_assert!(recent.peek(key).is_none_or(|kept| Some(*kept) == *value));
                }
                prop_assert!(recent.young.len() + recent.old.len() <= 2 * GENERATION);
            }
        }
    }
}
