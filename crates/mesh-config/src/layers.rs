//! The layers a configuration is made of, and which of them gives a key its value.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::document::Node;
use crate::finding::{Origin, Report};
use crate::key::Key;

/// What every environment variable of the configuration begins with.
pub(crate) const VARIABLE_PREFIX: &str = "MESHCONTROL_";

/// Everything a configuration is read from.
#[derive(Clone, Default)]
pub struct Source {
    /// Name and text of the configuration file. Relative paths given anywhere are relative to its
    /// directory; without a file they are relative to the working directory.
    pub file: Option<(PathBuf, String)>,
    /// Environment variables; those without the prefix `MESHCONTROL_` are not looked at, and an
    /// empty value counts as not given. The last of several with one name wins.
    pub environment: Vec<(String, String)>,
    /// Values from the command line, the strongest layer; the last for a key wins.
    pub overrides: Vec<Override>,
    /// The directory that every path defaults into.
    pub data_dir: PathBuf,
}

/// Names only: values may be secret.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables: Vec<_> = self.environment.iter().map(|(name, _)| name).collect();
        let flags: Vec<_> = self.overrides.iter().map(|given| &given.flag).collect();
        f.debug_struct("Source")
            .field("file", &self.file.as_ref().map(|(path, _)| path))
            .field("environment", &variables)
            .field("overrides", &flags)
            .field("data_dir", &self.data_dir)
            .finish()
    }
}

/// A value from the command line; has no `Debug` of its value, which may be secret.
#[derive(Clone)]
pub struct Override {
    /// The flag as people type it, `--listen`: named in findings.
    pub flag: String,
    /// The key it sets, `listen_addr`.
    pub path: String,
    /// The value, written as in the environment.
    pub value: String,
}

impl fmt::Debug for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Override({} sets {})", self.flag, self.path)
    }
}

/// The variable that sets the key at `path`: `derp.server.enabled` is
/// `MESHCONTROL_DERP_SERVER_ENABLED`.
pub(crate) fn variable(path: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", path.replace('.', "_").to_ascii_uppercase())
}

/// The value somebody gave to a key.
pub(crate) enum Given<'a> {
    /// A node of the file.
    Node(Origin, &'a Node),
    /// A text from the environment or a flag.
    Text(Origin, &'a str),
}

/// The layers above the defaults.
pub(crate) struct Layers<'a> {
    /// The file's content; null without a file.
    pub(crate) document: Node,
    /// Variables with the prefix and a value.
    pub(crate) environment: BTreeMap<&'a str, &'a str>,
    pub(crate) overrides: &'a [Override],
    /// What relative paths are relative to.
    pub(crate) base: &'a Path,
    pub(crate) data_dir: &'a Path,
}

impl<'a> Layers<'a> {
    pub(crate) fn new(source: &'a Source, document: Node) -> Self {
        let environment = source.environment.iter();
        let environment = environment
            .filter(|(name, value)| name.starts_with(VARIABLE_PREFIX) && !value.is_empty())
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let file = source.file.as_ref().map(|(path, _)| path.as_path());
        Self {
            document,
            environment: environment.collect(),
            overrides: &source.overrides,
            base: file.and_then(Path::parent).unwrap_or(Path::new("")),
            data_dir: &source.data_dir,
        }
    }

    /// The strongest layer's value for the key; within a layer the proper name wins over aliases.
    pub(crate) fn given(&self, key: &Key, report: &Report) -> Option<Given<'_>> {
        self.flag(key).or_else(|| self.variable(key)).or_else(|| {
            let node = key.names().find_map(|name| self.document.find(name))?;
            Some(Given::Node(report.in_file(node.position), node))
        })
    }

    fn flag(&self, key: &Key) -> Option<Given<'_>> {
        let given = self.overrides.iter().rev().find(|given| given.path == key.path)?;
        Some(Given::Text(Origin::Flag { flag: given.flag.clone() }, &given.value))
    }

    fn variable(&self, key: &Key) -> Option<Given<'_>> {
        key.names().map(variable).find_map(|variable| {
            let text = self.environment.get(variable.as_str())?;
            Some(Given::Text(Origin::Environment { variable }, text))
        })
    }
}
