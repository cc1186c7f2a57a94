//! A vector that shares what did not change with its clones.

use std::sync::Arc;

/// How many items stand together. A change of a shared vector copies one chunk and the list of chunks.
const CHUNK: usize = 128;

/// A growing vector of slots. A clone costs one reference count; a change after it copies one chunk.
#[derive(Debug, Clone)]
pub(crate) struct Chunked<T> {
    chunks: Arc<Vec<Arc<Vec<T>>>>,
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self { chunks: Arc::default() }
    }
}

impl<T: Clone + Default> Chunked<T> {
    /// A vector of this many empty slots.
    pub(crate) fn of_len(len: usize) -> Self {
        let chunk: Arc<Vec<T>> = Arc::new(vec![T::default(); CHUNK]);
        Self { chunks: Arc::new(vec![chunk; len.div_ceil(CHUNK)]) }
    }

    /// The item of a slot; `None` beyond the end.
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        let index = index as usize;
        self.chunks.get(index / CHUNK)?.get(index % CHUNK)
    }

    /// The item of a slot to change, which is made if it is not there.
    pub(crate) fn get_mut(&mut self, index: u32) -> &mut T {
        let index = index as usize;
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks.len() <= index / CHUNK {
            let empty: Arc<Vec<T>> = Arc::new(vec![T::default(); CHUNK]);
            chunks.resize(index / CHUNK + 1, empty);
        }
        &mut Arc::make_mut(&mut chunks[index / CHUNK])[index % CHUNK]
    }

    /// Changes the items of several slots, in ascending order, which all are there.
    pub(crate) fn edit_each(
        &mut self,
        slots: impl Iterator<Item = u32>,
        mut edit: impl FnMut(&mut T),
    ) {
        let chunks = Arc::make_mut(&mut self.chunks);
        let mut slots = slots.map(|slot| slot as usize).peekable();
        while let Some(number) = slots.peek().map(|slot| slot / CHUNK) {
            let chunk = Arc::make_mut(&mut chunks[number]);
            while let Some(slot) = slots.next_if(|slot| slot / CHUNK == number) {
                edit(&mut chunk[slot % CHUNK]);
            }
        }
    }

    /// All items with their slots, empty ones included.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.iter())
            .zip(0..)
            .map(|(item, index)| (index, item))
    }
}
