//! How a control server is driven: what an adapter file says, with the blanks of its texts filled in.
//!
//! `crates/xtask/adapters/README.md` tells the keys and the words in braces.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize;

use crate::command::root;

/// Where the adapters of this checkout are.
const SHIPPED: &str = "crates/xtask/adapters";

/// An adapter and the program it drives: `headscale=/path/to/headscale`.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    /// What the adapter is called, for tables.
    pub(crate) name: String,
    /// The server's program.
    pub(crate) binary: PathBuf,
    /// What the adapter's file says.
    pub(crate) adapter: Adapter,
}

/// What an adapter's file says.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Adapter {
    pub(super) files: BTreeMap<String, String>,
    pub(super) serve: String,
    pub(super) healthy: String,
    pub(super) version: String,
    pub(super) user: String,
    pub(super) key: String,
    pub(super) owner_user: String,
    pub(super) owner_tags: String,
    pub(super) reuse: String,
    pub(super) policy: String,
}

/// What stands for the words in braces.
#[derive(Clone, Debug, Default)]
pub(super) struct Words(BTreeMap<&'static str, String>);

impl Side {
    /// Reads the adapter `name`: one of this checkout, or a file.
    ///
    /// # Errors
    /// There is no such file, or it is no adapter.
    pub(crate) fn new(name: &str, binary: PathBuf) -> Result<Self> {
        let shipped = root().join(SHIPPED).join(name).with_extension("yaml");
        let path = if shipped.is_file() { shipped } else { PathBuf::from(name) };
        let text = fs::read_to_string(&path)
            .with_context(|| format!("no adapter {name:?} in {SHIPPED}, and no such file"))?;
        let adapter = serde_saphyr::from_str(&text)
            .map_err(|error| anyhow!("{}: {error}", path.display()))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Self { name: stem.into_owned(), binary, adapter })
    }

    /// Whether the server keeps its data in Postgres.
    pub(super) fn wants_postgres(&self) -> bool {
        self.adapter.files.values().any(|text| text.contains("{postgres}"))
    }
}

impl FromStr for Side {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, binary) = text.split_once('=').context("not ADAPTER=BINARY")?;
        let binary = fs::canonicalize(binary).with_context(|| binary.to_owned())?;
        let mut side = Self::new(name, binary)?;
        // One adapter may drive several programs: two versions, for one.
        let program = side.binary.file_name().unwrap_or_default().to_string_lossy();
        side.name = format!("{}@{program}", side.name);
        Ok(side)
    }
}

impl Words {
    /// With one word more, or another meaning of it.
    pub(super) fn with(&self, word: &'static str, meaning: impl Into<String>) -> Self {
        let mut words = self.clone();
        words.0.insert(word, meaning.into());
        words
    }

    /// A text with its words in braces replaced; braces around anything else stay.
    pub(super) fn fill(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (word, meaning)| {
            text.replace(&format!("{{{word}}}"), meaning)
        })
    }

    /// A command, cut at blanks.
    ///
    /// # Errors
    /// It is empty.
    pub(super) fn command(&self, text: &str, directory: &Path) -> Result<Command> {
        let line = self.fill(text);
        let mut words = line.split_whitespace();
        let Some(program) = words.next() else { bail!("a command of the adapter is empty") };
        let mut command = Command::new(program);
        command.args(words).current_dir(directory);
        Ok(command)
    }
}

#[cfg(test)]
mod tests;
