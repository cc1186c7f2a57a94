//! Sets of sequence numbers: what has come behind a hole, and what the peer says so of.

use std::ops::Range;

/// Most ranges of a set: a peer that leaves more holes sends again what is behind them.
const RANGES_MAX: usize = 64;

/// A set of sequence numbers.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    /// In order; neither empty nor touching each other.
    list: Vec<Range<u64>>,
}

impl Ranges {
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Range<u64>> {
        self.list.iter()
    }

    /// Adds a range, unless there are too many; returns whether it is in the set.
    pub(crate) fn insert(&mut self, range: Range<u64>) -> bool {
        if range.is_empty() {
            return true;
        }
        let first = self.list.partition_point(|other| other.end < range.start);
        let behind = self.list.partition_point(|other| other.start <= range.end);
        if first == behind {
            let has_room = self.list.len() < RANGES_MAX;
            if has_room {
                self.list.insert(first, range);
            }
            return has_room;
        }
        let start = range.start.min(self.list[first].start);
        let end = range.end.max(self.list[behind - 1].end);
        self.list[first] = start..end;
        self.list.drain(first + 1..behind);
        true
    }

    /// Takes out all below a number.
    pub(crate) fn remove_below(&mut self, bound: u64) {
        let gone = self.list.partition_point(|range| range.end <= bound);
        self.list.drain(..gone);
        if let Some(first) = self.list.first_mut() {
            first.start = first.start.max(bound);
        }
    }

    /// The size of the set between two numbers.
    pub(crate) fn size_within(&self, bounds: Range<u64>) -> u64 {
        let part = |range: &Range<u64>| {
            range.end.min(bounds.end).saturating_sub(range.start.max(bounds.start))
        };
        self.list.iter().map(part).sum()
    }

    /// The first number from `from` on that is not in the set, and the one behind it that is.
    pub(crate) fn first_gap(&self, from: u64) -> (u64, Option<u64>) {
        let next = self.list.partition_point(|range| range.end <= from);
        match self.list.get(next) {
            Some(range) if range.start <= from => {
                (range.end, self.list.get(next + 1).map(|range| range.start))
            }
            Some(range) => (from, Some(range.start)),
            None => (from, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_a_set_of_numbers(
            steps in vec((any::<bool>(), 0..200_u64, 0..20_u64), 0..60),
            (from, length) in (0..200_u64, 0..50_u64),
        ) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (is_added, start, length) in steps {
                if is_added {
                    prop_assert!(ranges.insert(start..start + length));
                    model.extend(start..start + length);
                } else {
                    ranges.remove_below(start / 4);
                    model = model.split_off(&(start / 4));
                }
                prop_assert!(ranges.iter().cloned().flatten().eq(model.iter().copied()));
                prop_assert!(ranges.list.is_sorted_by(|one, next| one.end < next.start));
            }
            let within = model.range(from..from + length).count() as u64;
            prop_assert_eq!(ranges.size_within(from..from + length), within);
            let gap = (from..300).find(|number| !model.contains(number)).expect("it is finite");
            let behind = model.range(gap..).next().copied();
            prop_assert_eq!(ranges.first_gap(from), (gap, behind));
        }
    }

    #[test]
    fn there_are_never_too_many() {
        let mut ranges = Ranges::default();
        let kept = (0..100_u64).filter(|number| ranges.insert(number * 10..number * 10 + 1));
        assert_eq!(kept.count(), RANGES_MAX);
        assert!(ranges.insert(1..10), "what joins two needs no room");
    }
}
