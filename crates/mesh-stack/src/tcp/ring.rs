//! A queue of bytes that grows by need.

/// The smallest memory of a ring that has any.
const CAPACITY_MIN: usize = 4096;

/// Bytes in order, and behind them room where later ones may lie already.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    /// Its length is zero or a power of two.
    bytes: Box<[u8]>,
    head: usize,
    length: usize,
}

impl Ring {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Bytes of memory.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Adds bytes behind those that are there.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.write_at(self.length, bytes);
        self.length += bytes.len();
    }

    /// Writes bytes at a distance from the first one, without adding them.
    pub(crate) fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.reserve(offset + bytes.len());
        let start = self.position(offset);
        let first = bytes.len().min(self.bytes.len() - start);
        self.bytes[start..start + first].copy_from_slice(&bytes[..first]);
        self.bytes[..bytes.len() - first].copy_from_slice(&bytes[first..]);
    }

    /// Adds bytes that were written before.
    pub(crate) fn extend(&mut self, length: usize) {
        self.length += length;
    }

    /// Bytes at a distance from the first one, in two parts. They must be there.
    pub(crate) fn slices(&self, offset: usize, length: usize) -> [&[u8]; 2] {
        if length == 0 {
            return [&[], &[]];
        }
        let start = self.position(offset);
        let first = length.min(self.bytes.len() - start);
        [&self.bytes[start..start + first], &self.bytes[..length - first]]
    }

    /// Takes bytes away from the front.
    pub(crate) fn consume(&mut self, length: usize) {
        if length > 0 {
            self.head = self.position(length);
            self.length -= length;
        }
    }

    /// Gives the memory back. Nothing may be in it.
    pub(crate) fn release(&mut self) {
        *self = Self::default();
    }

    fn position(&self, offset: usize) -> usize {
        (self.head + offset) & (self.bytes.len() - 1)
    }

    fn reserve(&mut self, needed: usize) {
        if needed <= self.bytes.len() {
            return;
        }
        let mut grown = vec![0; needed.next_power_of_two().max(CAPACITY_MIN)];
        let (behind, before) = (&self.bytes[self.head..], &self.bytes[..self.head]);
        grown[..behind.len()].copy_from_slice(behind);
        grown[behind.len()..self.bytes.len()].copy_from_slice(before);
        self.bytes = grown.into();
        self.head = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(Vec<u8>),
        WriteLater(usize, Vec<u8>),
        Consume(usize),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let bytes = || vec(any::<u8>(), 0..6000);
        prop_oneof![
            bytes().prop_map(Step::Push),
            (0..3000_usize, bytes()).prop_map(|(gap, bytes)| Step::WriteLater(gap, bytes)),
            (0..9000_usize).prop_map(Step::Consume),
        ]
    }

    #[test]
    fn nothing_needs_no_memory() {
        let mut ring = Ring::default();
        ring.push(b"");
        ring.consume(0);
        assert_eq!((ring.len(), ring.capacity(), ring.slices(0, 0)), (0, 0, [&b""[..]; 2]));
    }

    proptest! {
        #[test]
        fn ring_is_a_queue(steps in vec(any_step(), 0..40)) {
            let (mut ring, mut model) = (Ring::default(), VecDeque::new());
            for step in steps {
                match step {
                    Step::Push(bytes) => {
                        ring.push(&bytes);
                        model.extend(bytes);
                    }
                    Step::WriteLater(gap, bytes) => {
                        // First what lies behind, then what is between.
                        let between = vec![7; gap];
                        ring.write_at(ring.len() + gap, &bytes);
                        ring.write_at(ring.len(), &between);
                        ring.extend(gap + bytes.len());
                        model.extend(between);
                        model.extend(bytes);
                    }
                    Step::Consume(length) => {
                        let length = length.min(model.len());
                        ring.consume(length);
                        model.drain(..length);
                    }
                }
                prop_assert_eq!(ring.len(), model.len());
                prop_assert!(ring.slices(0, ring.len()).concat().iter().eq(&model));
                let half = ring.len() / 2;
                prop_assert!(ring.slices(half, ring.len() - half).concat().iter().eq(model.iter().skip(half)));
            }
        }
    }
}
