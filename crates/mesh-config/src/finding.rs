//! What reading a configuration found: errors, warnings, and where each comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use crate::document::Position;

/// Where a value or a name comes from. Sorts as findings are shown: by file and line, then by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A place in the configuration file, counted from 1; columns count characters.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// Line, 0 when the whole file is meant.
        line: u64,
        /// Column, 0 when the whole file is meant.
        column: u64,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// A command-line flag.
    Flag {
        /// The flag as people type it, `--listen`.
        flag: String,
    },
    /// Nobody gave a value: the default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: 0, .. } => write!(f, "{}", path.display()),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Environment { variable } => f.write_str(variable),
            Self::Flag { flag } => f.write_str(flag),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing to tell the operator: an error or a warning.
///
/// `Display` is one line: origin, key, what is wrong and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where it was found.
    pub origin: Origin,
    /// The path of the key as written, such as `derp.server.enabled`; empty for the whole file.
    pub path: String,
    /// What is wrong and what to do; never a secret.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Why a configuration was refused: all errors at once, and the warnings beside them.
///
/// `Display` is the [`report`] of both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// At least one.
    pub errors: Vec<Finding>,
    /// What would have been told had it been accepted.
    pub warnings: Vec<Finding>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&report(&self.errors, &self.warnings))
    }
}

impl std::error::Error for Problems {}

/// Tells people what was found: one line each, errors first, then how many of both.
pub fn report(errors: &[Finding], warnings: &[Finding]) -> String {
    let mut text = String::new();
    for (kind, findings) in [("error", errors), ("warning", warnings)] {
        for finding in findings {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{kind}: {finding}");
        }
    }
    let _ = write!(text, "{}, {}", count(errors.len(), "error"), count(warnings.len(), "warning"));
    text
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Collects findings while a configuration is read and checked.
pub(crate) struct Report {
    file: Option<PathBuf>,
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
    /// Where the value of each key that was given comes from, by its proper path.
    given: BTreeMap<&'static str, Origin>,
    /// Keys that had an error: one is enough for each.
    faulty: BTreeSet<&'static str>,
}

impl Report {
    pub(crate) fn new(file: Option<PathBuf>) -> Self {
        Self {
            file,
            errors: Vec::new(),
            warnings: Vec::new(),
            given: BTreeMap::new(),
            faulty: BTreeSet::new(),
        }
    }

    /// The origin of something at `position` in the file.
    pub(crate) fn in_file(&self, position: Option<Position>) -> Origin {
        let Position { line, column } = position.unwrap_or(Position { line: 0, column: 0 });
        Origin::File { path: self.file.clone().unwrap_or_default(), line, column }
    }

    /// Notes that the key's value was given, and where.
    pub(crate) fn give(&mut self, path: &'static str, origin: Origin) {
        self.given.insert(path, origin);
    }

    /// Whether somebody gave the key a value.
    pub(crate) fn is_given(&self, path: &str) -> bool {
        self.given.contains_key(path)
    }

    /// An error of a key whose value could be read; dropped if the key had one before.
    pub(crate) fn error(&mut self, path: &'static str, message: impl Into<String>) {
        if self.faulty.insert(path) {
            let finding = self.about(path, message.into());
            self.errors.push(finding);
        }
    }

    /// A warning about the value of a key.
    pub(crate) fn warning(&mut self, path: &'static str, message: impl Into<String>) {
        let finding = self.about(path, message.into());
        self.warnings.push(finding);
    }

    /// Refuses a span of zero.
    pub(crate) fn refuse_zero(&mut self, path: &'static str, span: Duration) {
        if span.is_zero() {
            self.error(path, "must be longer than 0");
        }
    }

    /// A fault at an exact place, which makes the key faulty if it belongs to one.
    pub(crate) fn fault(&mut self, key: Option<&'static str>, finding: Finding) {
        self.faulty.extend(key);
        self.errors.push(finding);
    }

    /// A warning at an exact place.
    pub(crate) fn warn(&mut self, finding: Finding) {
        self.warnings.push(finding);
    }

    fn about(&self, path: &'static str, message: String) -> Finding {
        let origin = self.given.get(path).cloned().unwrap_or(Origin::Default);
        Finding { origin, path: path.to_owned(), message }
    }

    /// Gives `value` back if there were no errors, and everything that was found in order.
    pub(crate) fn finish<T>(mut self, value: T) -> Result<(T, Vec<Finding>), Problems> {
        self.errors.sort();
        self.warnings.sort();
        if self.errors.is_empty() {
            Ok((value, self.warnings))
        } else {
            Err(Problems { errors: self.errors, warnings: self.warnings })
        }
    }
}
