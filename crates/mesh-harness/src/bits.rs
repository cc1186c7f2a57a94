//! A set of small numbers, one bit each.

const WORD_BITS: usize = u64::BITS as usize;

/// A set of numbers. Equal if the same numbers are in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct BitSet {
    words: Vec<u64>,
}

impl BitSet {
    /// Adds a number. False if it was there.
    pub(crate) fn insert(&mut self, number: usize) -> bool {
        let (word, bit) = (number / WORD_BITS, 1 << (number % WORD_BITS));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        is_new
    }

    /// Takes a number out. False if it was not there.
    pub(crate) fn remove(&mut self, number: usize) -> bool {
        let bit = 1 << (number % WORD_BITS);
        let Some(word) = self.words.get_mut(number / WORD_BITS) else { return false };
        let was_there = *word & bit != 0;
        *word &= !bit;
        was_there
    }

    pub(crate) fn contains(&self, number: usize) -> bool {
        self.word(number / WORD_BITS) & 1 << (number % WORD_BITS) != 0
    }

    pub(crate) fn clear(&mut self) {
        self.words.clear();
    }

    /// How many numbers are in this set, in `within` (if given), and not in `other`.
    pub(crate) fn count_beyond(&self, other: &Self, within: Option<&Self>) -> usize {
        let words = self.words.iter().enumerate();
        let beyond = words.map(|(index, word)| {
            let within = within.map_or(u64::MAX, |within| within.word(index));
            (word & !other.word(index) & within).count_ones() as usize
        });
        beyond.sum()
    }

    fn word(&self, index: usize) -> u64 {
        self.words.get(index).copied().unwrap_or(0)
    }
}

impl PartialEq for BitSet {
    fn eq(&self, other: &Self) -> bool {
        let length = self.words.len().max(other.words.len());
        (0..length).all(|index| self.word(index) == other.word(index))
    }
}

impl FromIterator<usize> for BitSet {
    fn from_iter<T: IntoIterator<Item = usize>>(numbers: T) -> Self {
        let mut set = Self::default();
        for number in numbers {
            set.insert(number);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((any::<bool>(), 0_usize..300), 0..50),
                       others in prop::collection::btree_set(0_usize..300, 0..50)) {
            let (mut bits, mut model) = (BitSet::default(), BTreeSet::new());
            for (inserts, number) in steps {
                if inserts {
                    prop_assert_eq!(bits.insert(number), model.insert(number));
                } else {
                    prop_assert_eq!(bits.remove(number), model.remove(&number));
                }
            }
            prop_assert_eq!(&bits, &model.iter().copied().collect());
            prop_assert!((0..400).all(|number| bits.contains(number) == model.contains(&number)));
            let other: BitSet = others.iter().copied().collect();
            prop_assert_eq!(bits.count_beyond(&other, None), model.difference(&others).count());
            prop_assert_eq!(bits.count_beyond(&BitSet::default(), Some(&other)), model.intersection(&others).count());
            prop_assert_eq!(bits == other, model == others);
        }
    }
}
