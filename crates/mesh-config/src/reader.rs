//! Takes the value of each key from the layers, or its default.

use std::path::Path;

use crate::document::Node;
use crate::finding::{Finding, Origin, Report};
use crate::key::Key;
use crate::layers::{Given, Layers};
use crate::value::{Faults, Reading, Value};

/// Reads keys one after the other; faults go to the report and the default takes their place.
pub(crate) struct Reader<'a> {
    pub(crate) keys: &'a [Key],
    pub(crate) layers: &'a Layers<'a>,
    pub(crate) report: Report,
}

impl Reader<'_> {
    /// The value of the key at `path`.
    ///
    /// # Panics
    /// When no section declares `path`, or its default is not of its type. Neither depends on what
    /// is read, so every test that loads anything shows it.
    pub(crate) fn read<T: Value>(&mut self, path: &'static str) -> T {
        let mut keys = self.keys.iter();
        let key = keys.find(|key| key.path == path).expect("invariant: `section!` declares it");
        self.given(key).unwrap_or_else(|| {
            let mut reading = Reading { base: self.layers.data_dir, faults: Vec::new() };
            let node = Node::from_yaml(key.default).expect("invariant: defaults are YAML");
            T::read(&node, &mut reading).expect("invariant: defaults are of their type")
        })
    }

    fn given<T: Value>(&mut self, key: &Key) -> Option<T> {
        let (origin, result) = match self.layers.given(key, &self.report)? {
            Given::Node(origin, node) => (origin, read_at(node, self.layers.base)),
            Given::Text(origin, text) => (
                origin,
                T::node(text)
                    .map_err(|message| vec![(None, message)])
                    .and_then(|node| read_at(&node, self.layers.base)),
            ),
        };
        self.report.give(key.path, origin.clone());
        let faults = match result {
            Ok(value) => return Some(value),
            Err(faults) => faults,
        };
        for (position, message) in faults {
            let origin = match (&origin, position) {
                (Origin::File { .. }, Some(_)) => self.report.in_file(position),
                _ => origin.clone(),
            };
            let finding = Finding { origin, path: key.path.to_owned(), message };
            self.report.fault(Some(key.path), finding);
        }
        None
    }
}

fn read_at<T: Value>(node: &Node, base: &Path) -> Result<T, Faults> {
    let mut reading = Reading { base, faults: Vec::new() };
    T::read(node, &mut reading).ok_or(reading.faults)
}
