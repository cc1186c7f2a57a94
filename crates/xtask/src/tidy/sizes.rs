//! The list of what is too long: it is committed, and it only shrinks.
//!
//! A line of the list reads `<path> <lines>` for a file and `<path>::<function> <lines>` for a function.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};

use super::Problem;
use super::house::House;
use super::source::Source;

/// A function above this many lines deserves a second look.
const FUNCTION_LINES_MAX: usize = 70;

/// A file above this many lines outside tests deserves a second look.
const FILE_LINES_MAX: usize = 600;

/// The list.
const LIST: &str = "crates/xtask/sizes.txt";

/// What is too long: name in the list -> lines, and where it begins.
type Sizes = BTreeMap<String, (usize, usize)>;

/// Compares what is too long with the list.
///
/// # Errors
/// When the list cannot be read.
pub(super) fn check(house: &House) -> Result<Vec<Problem>> {
    let list = fs::read_to_string(house.root.join(LIST)).with_context(|| LIST.to_owned())?;
    let sources = house.members.iter().flat_map(|member| &member.sources);
    Ok(compare(&sources.flat_map(measure).collect(), &parse(&list)))
}

/// Whatever of one file is too long.
fn measure(source: &Source) -> Sizes {
    let path = source.path.display();
    let file = (path.to_string(), (source.production_lines(), 1));
    let functions = source.functions();
    let long = functions.iter().filter(|function| function.lines > FUNCTION_LINES_MAX);
    long.map(|function| (format!("{path}::{}", function.name), (function.lines, function.line)))
        .chain(Some(file).filter(|(_, (lines, _))| *lines > FILE_LINES_MAX))
        .collect()
}

/// Reads the list: name -> lines, and the line in the list.
fn parse(list: &str) -> Sizes {
    let lines = list.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
    lines
        .filter_map(|(index, line)| {
            let (name, lines) = line.rsplit_once(' ')?;
            Some((name.to_owned(), (lines.parse().ok()?, index + 1)))
        })
        .collect()
}

fn compare(actual: &Sizes, listed: &Sizes) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, (lines, at)) in actual {
        let listed_lines = listed.get(name).map_or(0, |(lines, _)| *lines);
        if *lines > listed_lines {
            let file = name.split("::").next().unwrap_or(name);
            let what = format!("{name} has {lines} lines: cut it along what it owns");
            problems.push(Problem::new(file, *at, what));
        }
    }
    for (name, (listed_lines, at)) in listed {
        let what = match actual.get(name) {
            None => format!("{name} is not too long any more: remove this line"),
            Some((lines, _)) if lines < listed_lines => format!("{name} has shrunk: write {lines}"),
            Some(_) => continue,
        };
        problems.push(Problem::new(LIST, *at, what));
    }
    problems
}

#[cfg(test)]
mod tests;
