//! Looks at every name in the file and the environment: is it a key, a former one, a mistake?

use crate::document::{Content, Name, Node};
use crate::finding::{Finding, Origin, Report};
use crate::key::Key;
use crate::known::{
    Fate, IGNORED, Ignored, OTHER_VARIABLES, Quiet, REMOVED, Removed, TEST_VARIABLE_PREFIX,
};
use crate::layers::{Layers, variable};

/// How alike an unknown name and a known one must be for a suggestion, from 0 to 1.
const LIKENESS_MIN: f64 = 0.7;

/// Longer names are not compared with known ones, of which none has half of it.
const COMPARED_CHARS_MAX: usize = 100;

/// Unknown names for which the nearest is looked for; comparing is slow, and so many are no typos.
const COMPARED_NAMES_MAX: usize = 200;

/// Tells of all names that set nothing; the values of keys are left to the reader.
pub(crate) fn survey(keys: &[Key], layers: &Layers<'_>, report: &mut Report) {
    let mut surveyor = Surveyor { keys, layers, report, compared: 0 };
    surveyor.file();
    surveyor.environment();
    surveyor.flags();
}

struct Surveyor<'a> {
    keys: &'a [Key],
    layers: &'a Layers<'a>,
    report: &'a mut Report,
    /// How many names were compared with the known ones.
    compared: usize,
}

impl Surveyor<'_> {
    fn file(&mut self) {
        let document = &self.layers.document;
        match &document.content {
            Content::Null => {}
            Content::Map(entries) => self.section("", entries, false),
            Content::Text(_) | Content::List(_) => {
                let origin = self.report.in_file(document.position);
                let message = "the file must consist of keys and values".to_owned();
                self.report.fault(None, Finding { origin, path: String::new(), message });
            }
        }
    }

    /// Looks at the entries below `prefix`; in an ignored section only removed keys are told.
    fn section(&mut self, prefix: &str, entries: &[(Name, Node)], is_ignored: bool) {
        for (name, node) in entries {
            let path = match prefix {
                "" => name.text.clone(),
                _ => format!("{prefix}.{}", name.text),
            };
            self.entry(path, name, node, is_ignored);
        }
    }

    fn entry(&mut self, path: String, name: &Name, node: &Node, is_ignored: bool) {
        let origin = self.report.in_file(Some(name.position));
        if let Some(removed) = REMOVED.iter().find(|removed| removed.path == path) {
            self.removed(removed, origin);
        } else if self.names().any(|known| known == path) {
            // A key: the reader takes it.
        } else if let Some(ignored) = IGNORED.iter().find(|ignored| ignored.path == path) {
            if node.content != Content::Null {
                self.ignored(ignored, node.as_text(), origin);
            }
            self.below(&path, node, true);
        } else if is_ignored {
            self.below(&path, node, true);
        } else if self.is_section(&path) {
            self.below(&path, node, false);
        } else {
            self.unknown(path, origin);
        }
    }

    /// Looks into a section, which must be one unless it is ignored.
    fn below(&mut self, path: &str, node: &Node, is_ignored: bool) {
        match &node.content {
            Content::Map(entries) => self.section(path, entries, is_ignored),
            Content::Text(_) | Content::List(_) if !is_ignored => {
                let origin = self.report.in_file(node.position);
                let message = "this is a section; write its keys below it, indented".to_owned();
                self.report.fault(None, Finding { origin, path: path.to_owned(), message });
            }
            Content::Null | Content::Text(_) | Content::List(_) => {}
        }
    }

    fn environment(&mut self) {
        let given: Vec<_> = self.layers.environment.iter().map(|(n, v)| (*n, *v)).collect();
        for (name, value) in given {
            let origin = Origin::Environment { variable: name.to_owned() };
            if OTHER_VARIABLES.contains(&name) || name.starts_with(TEST_VARIABLE_PREFIX) {
                continue;
            }
            let is = |path: &str| variable(path) == name;
            let is_below = |path: &str| name.starts_with(&format!("{}_", variable(path)));
            if let Some(removed) = REMOVED.iter().find(|removed| is(removed.path)) {
                self.removed(removed, origin);
            } else if self.names().any(is) {
                // A key: the reader takes it.
            } else if let Some(ignored) = IGNORED.iter().find(|ignored| is(ignored.path)) {
                self.ignored(ignored, Some(value), origin);
            } else if let Some(ignored) = IGNORED.iter().find(|ignored| is_below(ignored.path)) {
                self.ignored(ignored, None, origin);
            } else {
                self.unknown_variable(name, origin);
            }
        }
    }

    fn flags(&mut self) {
        for given in self.layers.overrides {
            if !self.keys.iter().any(|key| key.path == given.path) {
                let origin = Origin::Flag { flag: given.flag.clone() };
                let message = "there is no such key".to_owned();
                self.report.fault(None, Finding { origin, path: given.path.clone(), message });
            }
        }
    }

    fn removed(&mut self, removed: &Removed, origin: Origin) {
        let is_refused = match removed.fate {
            Fate::Refused => true,
            Fate::Replaced(path) => !self.is_given(path),
            Fate::Dropped | Fate::Renamed => false,
        };
        let what = if removed.fate == Fate::Renamed { "is deprecated" } else { "has been removed" };
        let message = format!("{what}; {}", removed.advice);
        let finding = Finding { origin, path: removed.path.to_owned(), message };
        if is_refused { self.report.fault(None, finding) } else { self.report.warn(finding) }
    }

    fn is_given(&self, path: &str) -> bool {
        self.layers.document.find(path).is_some()
            || self.layers.environment.contains_key(variable(path).as_str())
    }

    fn ignored(&mut self, ignored: &Ignored, value: Option<&str>, origin: Origin) {
        let is_quiet = match ignored.quiet {
            Quiet::Never => false,
            Quiet::When(harmless) => value == Some(harmless),
            Quiet::Always => true,
        };
        if !is_quiet {
            let message = format!("not yet supported, ignored: {}", ignored.consequence);
            self.report.warn(Finding { origin, path: ignored.path.to_owned(), message });
        }
    }

    fn unknown(&mut self, path: String, origin: Origin) {
        let known = self.names().chain(IGNORED.iter().map(|ignored| ignored.path));
        let sections = known.clone().filter_map(|known| known.rsplit_once('.').map(|(s, _)| s));
        let candidates: Vec<_> = known.chain(sections).map(str::to_owned).collect();
        let nearest = self.most_alike(&path, candidates).or_else(|| self.namesake(&path));
        let message = format!("unknown key, ignored; {}", advice(nearest));
        self.report.warn(Finding { origin, path, message });
    }

    fn unknown_variable(&mut self, name: &str, origin: Origin) {
        let candidates = self.names().map(variable).collect();
        let nearest = self.most_alike(name, candidates);
        let message = format!("unknown variable, ignored; {}", advice(nearest));
        self.report.warn(Finding { origin, path: String::new(), message });
    }

    /// The candidate most like `name`, if any is enough alike.
    fn most_alike(&mut self, name: &str, candidates: Vec<String>) -> Option<String> {
        self.compared += 1;
        if name.len() > COMPARED_CHARS_MAX || self.compared > COMPARED_NAMES_MAX {
            return None;
        }
        candidates
            .into_iter()
            .map(|known| (strsim::normalized_damerau_levenshtein(name, &known), known))
            .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .map(|(_, known)| known)
    }

    /// The only key that ends as `path` does, which thus stands in the wrong section.
    fn namesake(&self, path: &str) -> Option<String> {
        let last = path.rsplit('.').next();
        let mut namesakes = self.names().filter(|known| known.rsplit('.').next() == last);
        let only = namesakes.next()?;
        namesakes.next().is_none().then(|| only.to_owned())
    }

    /// All names of all keys.
    fn names(&self) -> impl Iterator<Item = &'static str> + Clone + use<'_> {
        self.keys.iter().flat_map(Key::names)
    }

    /// Whether something known lies below `path`.
    fn is_section(&self, path: &str) -> bool {
        let is_below =
            |known: &str| known.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        self.names().any(is_below)
            || IGNORED.iter().any(|ignored| is_below(ignored.path))
            || REMOVED.iter().any(|removed| is_below(removed.path))
    }
}

fn advice(nearest: Option<String>) -> String {
    nearest.map_or("delete it".to_owned(), |nearest| format!("did you mean {nearest}?"))
}
