//! When what is told of nodes last changed, by blocks of ids.

use std::ops::Range;
use std::sync::Arc;

use mesh_state::ChangeSet;

/// How many ids stand together.
pub(crate) const BLOCK: u32 = 32;

/// For each block of ids the last flush that may have changed what some viewer is told of one of its nodes. A clone
/// costs one reference count, and a change after it eight bytes per block.
#[derive(Debug, Clone, Default)]
pub(crate) struct Versions {
    blocks: Arc<Vec<u64>>,
    /// The last flush that may have changed everything.
    everything: u64,
}

impl Versions {
    /// Notes what a flush changed; everything, if that is not known.
    pub(crate) fn note(&mut self, flush: u64, changes: Option<&ChangeSet>) {
        let Some(changes) = changes else {
            self.everything = flush;
            return;
        };
        let policy = &changes.policy;
        for id in [&changes.nodes, &policy.moved, &policy.routers].into_iter().flatten() {
            let block = (id / BLOCK) as usize;
            if self.blocks.get(block) == Some(&flush) {
                continue;
            }
            let blocks = Arc::make_mut(&mut self.blocks);
            if blocks.len() <= block {
                blocks.resize(block + 1, 0);
            }
            blocks[block] = flush;
        }
    }

    /// The last flush that may have changed a node among these blocks.
    pub(crate) fn of(&self, blocks: Range<u32>) -> u64 {
        let end = (blocks.end as usize).min(self.blocks.len());
        let start = (blocks.start as usize).min(end);
        self.blocks[start..end].iter().copied().max().unwrap_or(0).max(self.everything)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(nodes: &[u32]) -> ChangeSet {
        ChangeSet { nodes: nodes.iter().copied().collect(), ..ChangeSet::default() }
    }

    #[test]
    fn a_block_has_the_version_of_its_last_change() {
        let mut versions = Versions::default();
        versions.note(1, Some(&changes(&[1, 31, 32])));
        versions.note(2, Some(&changes(&[40])));
        assert_eq!([0..1, 1..2, 0..2, 2..9].map(|blocks| versions.of(blocks)), [1, 2, 2, 0]);
        let earlier = versions.clone();
        versions.note(3, None);
        assert_eq!([0..1, 7..8].map(|blocks| versions.of(blocks)), [3, 3]);
        assert_eq!(earlier.of(0..1), 1, "an earlier flush keeps its versions");
    }
}
