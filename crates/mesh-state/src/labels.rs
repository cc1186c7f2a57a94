//! Which variants of a name are worth trying, so that a thousand nodes called alike do not search each other's.

use mesh_model::label_with_suffix;
use rpds::HashTrieMapSync;

/// Below which number all variants of a label are taken, as far as anybody looked.
///
/// Only a bound to start a search from, and never wrong: whoever lets go of a label lowers it. A label that was cut to
/// make room for its number leads nowhere then, which costs a small number and nothing else.
#[derive(Debug, Clone, Default)]
pub(crate) struct Labels(HashTrieMapSync<String, u32>);

impl Labels {
    /// The label, or its first variant that is free.
    pub(crate) fn first_free(&mut self, label: &str, is_free: impl Fn(&str) -> bool) -> String {
        if is_free(label) {
            return label.to_owned();
        }
        let start = self.0.get(label).copied().unwrap_or(1);
        let (number, variant) = (start..=u32::MAX)
            .map(|number| (number, label_with_suffix(label, number)))
            .find(|(_, variant)| is_free(variant))
            .expect("invariant: there are fewer nodes than numbers");
        // It may stay free: what it was looked up for can still be refused.
        if number > start {
            self.0.insert_mut(label.to_owned(), number);
        }
        variant
    }

    /// Notes that nobody has a label any more.
    pub(crate) fn release(&mut self, label: &str) {
        let Some((base, number)) = label.rsplit_once('-') else { return };
        let Ok(number) = number.parse::<u32>() else { return };
        if self.0.get(base).is_some_and(|start| *start > number) {
            self.0.insert_mut(base.to_owned(), number);
        }
    }
}

#[cfg(test)]
mod tests;
