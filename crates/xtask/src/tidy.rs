//! `cargo xtask tidy`: the rules of the house as checks.
//!
//! What is promised about the whole workspace (layers, pure cores, one home for SQL, docs that name what
//! exists) is proven here from `cargo metadata` and a light scan of the source. A check says one line per
//! problem: where, what, and what to do.

mod docs;
mod graph;
mod house;
mod layers;
mod manifests;
mod migrations;
mod purity;
mod sizes;
mod source;

use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, bail};

use self::house::House;
use crate::command::root;

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Problem {
    /// From the root of the checkout.
    file: PathBuf,
    /// Counted from 1.
    line: usize,
    /// What is wrong and what to do.
    what: String,
}

impl Problem {
    fn new(file: impl Into<PathBuf>, line: usize, what: impl Into<String>) -> Self {
        Self { file: file.into(), line, what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// Runs every check and prints what it finds.
///
/// # Errors
/// When there is a problem, or when the workspace cannot be read.
pub(crate) fn run() -> Result<()> {
    let house = House::read(&root())?;
    let mut problems = [
        manifests::check(&house),
        layers::check(&house),
        graph::check(&house),
        purity::check(&house),
        sizes::check(&house)?,
        migrations::check(&house)?,
        docs::check(&house)?,
    ]
    .concat();
    problems.sort();
    problems.dedup();
    for problem in &problems {
        println!("{problem}");
    }
    match problems.len() {
        0 => Ok(()),
        1 => bail!("1 problem"),
        count => bail!("{count} problems"),
    }
}
