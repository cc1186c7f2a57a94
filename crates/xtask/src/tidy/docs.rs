//! The docs name what exists: every symbol and path in them is looked up, and every link followed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Problem;
use super::house::{House, Member};
use super::source::find_words;

/// The docs whose symbols are looked up in the source.
const WITH_SYMBOLS: [&str; 1] = ["docs/ARCHITECTURE.md"];

/// Paths by which docs call two crates for short.
const SHORT_NAMES: [(&str, &str); 2] = [("wire", "mesh-wire"), ("model", "mesh-model")];

/// What a symbol of the docs asks for.
#[derive(Debug, PartialEq, Eq)]
struct Symbol<'a> {
    /// The path, `["State", "apply"]`.
    path: Vec<&'a str>,
    /// Whether it was written as a call.
    is_function: bool,
}

/// Checks every page of the docs.
///
/// # Errors
/// When a page cannot be read.
pub(super) fn check(house: &House) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for page in pages(&house.root)? {
        let text = fs::read_to_string(house.root.join(&page))?;
        let looks_up_symbols = WITH_SYMBOLS.iter().any(|with| page == Path::new(with));
        for (index, line) in text.lines().enumerate() {
            let mut complaints = check_links(&house.root, &page, line);
            complaints.extend(check_paths(&house.root, line));
            if looks_up_symbols {
                complaints.extend(check_symbols(house, line));
            }
            problems
                .extend(complaints.into_iter().map(|what| Problem::new(&page, index + 1, what)));
        }
    }
    Ok(problems)
}

/// The pages, from the root of the checkout: those at the top, and all under `docs`.
fn pages(root: &Path) -> Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path.strip_prefix(root)?.to_path_buf());
            }
        }
    }
    let top = ["README.md", "CHANGELOG.md"].map(PathBuf::from);
    pages.extend(top.into_iter().filter(|page| root.join(page).is_file()));
    Ok(pages)
}

/// Every relative link leads to a file.
fn check_links(root: &Path, page: &Path, line: &str) -> Vec<String> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .filter(|target| !root.join(page).with_file_name(target).exists())
        .map(|target| format!("the link to {target} leads nowhere: mend or drop it"))
        .collect()
}

/// Every path in a code span that begins with a folder of the house leads to a file.
fn check_paths(root: &Path, line: &str) -> Vec<String> {
    let is_path = |span: &&str| {
        let in_house = ["crates/", "docs/", "integration/", "migrations/", ".ci/"];
        in_house.iter().any(|folder| span.starts_with(folder)) && !span.contains(['<', '*', ' '])
    };
    code_spans(line)
        .filter(is_path)
        .filter(|span| !root.join(span).exists())
        .map(|span| format!("there is no {span}: mend or drop it"))
        .collect()
}

/// Every symbol in a code span is in the source.
fn check_symbols(house: &House, line: &str) -> Vec<String> {
    code_spans(line)
        .filter_map(parse_symbol)
        .filter(|symbol| !exists(house, symbol))
        .map(|symbol| format!("no {} in the source: name what exists", symbol.path.join("::")))
        .collect()
}

fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Reads a code span that holds `::` or a call; anything else is no symbol.
fn parse_symbol(span: &str) -> Option<Symbol<'_>> {
    let name_end = span.find(|c: char| !(c.is_alphanumeric() || "_:".contains(c)));
    let (name, rest) = span.split_at(name_end.unwrap_or(span.len()));
    let path: Vec<_> = name.split("::").collect();
    let is_function = rest.starts_with('(');
    let is_symbol = (path.len() > 1 || is_function) && path.iter().all(|part| !part.is_empty());
    is_symbol.then_some(Symbol { path, is_function })
}

/// Whether some file holds the symbol's last word, as a function if it is called, together with the word
/// before it; a crate's name at the front narrows the search to that crate.
fn exists(house: &House, symbol: &Symbol<'_>) -> bool {
    let [first, rest @ ..] = &symbol.path[..] else { return false };
    let narrowed = crate_called(house, first);
    let members = narrowed.map_or(&house.members[..], std::slice::from_ref);
    let words = if narrowed.is_some() { rest } else { &symbol.path };
    let Some((last, before)) = words.split_last() else { return true };
    let definition = if symbol.is_function { format!("fn {last}") } else { (*last).to_owned() };
    let sources = members.iter().flat_map(|member| &member.sources);
    sources.filter(|source| source.is_production()).any(|source| {
        let holds = |word: &str| find_words(&source.production, word).is_some();
        holds(&definition)
            && before.last().is_none_or(|owner| holds(owner) || is_module(&source.path, owner))
    })
}

fn crate_called<'a>(house: &'a House, name: &str) -> Option<&'a Member> {
    let short = SHORT_NAMES.iter().find(|(short, _)| *short == name).map(|(_, full)| *full);
    house.member(short.unwrap_or(&name.replace('_', "-")))
}

/// Whether the file at `path` is the module `name` or lies in it.
fn is_module(path: &Path, name: &str) -> bool {
    path.with_extension("").components().any(|part| part.as_os_str() == name)
}

#[cfg(test)]
mod tests;
