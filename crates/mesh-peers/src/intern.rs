//! Values that many peers have in common are kept once.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

/// How many values are kept before the first look for those that nobody has any more.
const SWEEP_AT_LEAST: usize = 64;

/// Values by the text they are written as.
#[derive(Debug)]
pub(crate) struct Interner<T> {
    values: HashMap<Box<str>, Arc<T>, RandomState>,
    /// `values` is swept when it has grown to so many.
    sweep_at: usize,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { values: HashMap::default(), sweep_at: SWEEP_AT_LEAST }
    }
}

impl<T> Interner<T> {
    /// The value of this text; `make` is called if nobody has it.
    pub(crate) fn get_or_insert(&mut self, text: &str, make: impl FnOnce() -> T) -> Arc<T> {
        if let Some(value) = self.values.get(text) {
            return Arc::clone(value);
        }
        if self.values.len() >= self.sweep_at {
            self.values.retain(|_, value| Arc::strong_count(value) > 1);
            self.sweep_at = (2 * self.values.len()).max(SWEEP_AT_LEAST);
        }
        let value = Arc::new(make());
        self.values.insert(text.into(), Arc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_share_and_what_nobody_has_goes() {
        let mut interner = Interner::default();
        let kept = interner.get_or_insert("kept", || 0);
        for number in 1..10_000 {
            interner.get_or_insert(&number.to_string(), || number);
        }
        assert!(interner.values.len() <= 2 * SWEEP_AT_LEAST, "{}", interner.values.len());
        assert!(Arc::ptr_eq(&kept, &interner.get_or_insert("kept", || 1)));
    }
}
