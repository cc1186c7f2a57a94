//! The nodes of a class.

use roaring::RoaringBitmap;

/// Up to how many nodes are a list. Most classes have few, and walking a list is several times as fast.
const FEW_MAX: usize = 64;

/// A set of node ids that is mostly small.
#[derive(Debug, Clone)]
pub(crate) enum Members {
    /// Sorted.
    Few(Vec<u32>),
    /// More than that.
    Many(RoaringBitmap),
}

impl Default for Members {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Members {
    pub(crate) fn insert(&mut self, id: u32) {
        match self {
            Self::Few(ids) if ids.len() == FEW_MAX => {
                let mut many: RoaringBitmap = ids.iter().copied().collect();
                many.insert(id);
                *self = Self::Many(many);
            }
            Self::Few(ids) => {
                if let Err(place) = ids.binary_search(&id) {
                    ids.insert(place, id);
                }
            }
            Self::Many(ids) => {
                ids.insert(id);
            }
        }
    }

    pub(crate) fn remove(&mut self, id: u32) {
        match self {
            Self::Few(ids) => {
                if let Ok(place) = ids.binary_search(&id) {
                    ids.remove(place);
                }
            }
            Self::Many(ids) => {
                ids.remove(id);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Few(ids) => ids.is_empty(),
            Self::Many(ids) => ids.is_empty(),
        }
    }

    pub(crate) fn for_each(&self, see: impl FnMut(u32)) {
        match self {
            Self::Few(ids) => ids.iter().copied().for_each(see),
            Self::Many(ids) => ids.iter().for_each(see),
        }
    }

    /// Bytes on the heap, about.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Few(ids) => ids.capacity() * size_of::<u32>(),
            Self::Many(ids) => bitmap_bytes(ids),
        }
    }

    pub(crate) fn add_to(&self, nodes: &mut RoaringBitmap) {
        match self {
            Self::Few(ids) => nodes.extend(ids),
            Self::Many(ids) => *nodes |= ids,
        }
    }
}

/// Bytes of a bitmap on the heap, about.
pub(crate) fn bitmap_bytes(bitmap: &RoaringBitmap) -> usize {
    let statistics = bitmap.statistics();
    let containers = statistics.n_bytes_array_containers
        + statistics.n_bytes_bitset_containers
        + statistics.n_bytes_run_containers;
    usize::try_from(containers).unwrap_or(usize::MAX) + statistics.n_containers as usize * 40
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn members_are_a_set(changes in proptest::collection::vec((any::<bool>(), 0..200_u32), 0..400)) {
            let (mut members, mut naive) = (Members::default(), BTreeSet::new());
            for (is_new, id) in changes {
                if is_new {
                    members.insert(id);
                    naive.insert(id);
                } else {
                    members.remove(id);
                    naive.remove(&id);
                }
                prop_assert_eq!(members.is_empty(), naive.is_empty());
            }
            let mut seen = Vec::new();
            members.for_each(|id| seen.push(id));
            let mut added = RoaringBitmap::new();
            members.add_to(&mut added);
            prop_assert_eq!(&seen, &naive.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(&added, &naive.into_iter().collect::<RoaringBitmap>());
        }
    }
}
