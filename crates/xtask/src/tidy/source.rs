//! A light reading of Rust source: enough to search code without its comments, strings and tests.
//!
//! No parser: comments and literals are blanked out, items under `#[cfg(test)]` are cut by matching braces.
//! That is exact for formatted code that compiles, which is all that is ever checked.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// One Rust file.
#[derive(Debug)]
pub(super) struct Source {
    /// From the root of the checkout.
    pub(super) path: PathBuf,
    /// The file as it is.
    pub(super) text: String,
    /// The file with comments, literals and tests blanked out; the same length and lines as `text`.
    pub(super) production: String,
}

/// A function with its place and length.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function<'a> {
    pub(super) name: &'a str,
    /// The line of its `fn`, counted from 1.
    pub(super) line: usize,
    /// From the line of its `fn` to that of its closing brace.
    pub(super) lines: usize,
}

/// Reads every Rust file under the source folders of the crate in `folder`.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn read_all(root: &Path, folder: &Path) -> Result<Vec<Source>> {
    let mut paths = Vec::new();
    for part in ["src", "tests", "benches", "examples"] {
        collect(&folder.join(part), &mut paths)?;
    }
    if folder.join("build.rs").is_file() {
        paths.push(folder.join("build.rs"));
    }
    paths.sort();
    let mut sources = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path)?;
        sources.push(Source::new(path.strip_prefix(root)?.to_path_buf(), text));
    }
    blank_test_modules(&mut sources);
    Ok(sources)
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    Ok(())
}

/// Blanks the files of modules that another file declares under `#[cfg(test)]`.
fn blank_test_modules(sources: &mut [Source]) {
    let modules: Vec<PathBuf> = sources.iter().flat_map(Source::test_modules).collect();
    for source in sources {
        let bare = source.path.with_extension("");
        if modules.iter().any(|module| bare.starts_with(module)) {
            source.production = blank(&source.text);
        }
    }
}

impl Source {
    /// Reads `text` as the file at `path`.
    pub(super) fn new(path: PathBuf, text: String) -> Self {
        let is_test = path.components().any(|part| {
            ["tests", "benches", "examples"].iter().any(|folder| part.as_os_str() == *folder)
        }) || path.file_stem().is_some_and(|stem| stem == "tests");
        let production = if is_test { blank(&text) } else { blank_tests(&blank_text(&text)) };
        Self { path, text, production }
    }

    /// Whether any of the file is production code.
    pub(super) fn is_production(&self) -> bool {
        !self.production.trim().is_empty()
    }

    /// How many lines the file has outside tests.
    pub(super) fn production_lines(&self) -> usize {
        let code = blank_text(&self.text);
        let in_tests = self.production.lines().zip(code.lines());
        self.text.lines().count() - in_tests.filter(|(production, code)| production != code).count()
    }

    /// The lines, counted from 1, on which production code holds `needle` as whole words.
    pub(super) fn lines_with<'a>(&'a self, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.production
            .lines()
            .enumerate()
            .filter(move |(_, line)| find_words(line, needle).is_some())
            .map(|(index, _)| index + 1)
    }

    /// The functions of the production code.
    pub(super) fn functions(&self) -> Vec<Function<'_>> {
        let code = &self.production;
        let mut functions = Vec::new();
        let mut from = 0;
        while let Some(found) = find_words(&code[from..], "fn") {
            let start = from + found;
            from = start + "fn".len();
            if let Some(function) = function_at(code, start) {
                functions.push(function);
            }
        }
        functions
    }

    /// The modules that the file declares under `#[cfg(test)]`, as paths without extension.
    fn test_modules(&self) -> Vec<PathBuf> {
        let code = blank_text(&self.text);
        let declarations = code.match_indices(CFG_TEST).filter_map(|(at, _)| {
            let (item, _) = code[at + CFG_TEST.len()..].split_once(';')?;
            item.trim().strip_prefix("mod ").map(str::to_owned)
        });
        let folder = self.module_folder();
        declarations.map(|name| folder.join(name)).collect()
    }

    /// Where the files of this file's own modules are.
    fn module_folder(&self) -> PathBuf {
        let bare = self.path.with_extension("");
        let opens_folder = ["lib", "main", "mod"].iter().any(|stem| bare.ends_with(stem));
        if opens_folder { bare.parent().map(Path::to_path_buf).unwrap_or_default() } else { bare }
    }
}

/// The attribute that keeps an item out of production.
const CFG_TEST: &str = "#[cfg(test)]";

/// Finds `words` in `code` where no identifier goes on before or after.
pub(super) fn find_words(code: &str, words: &str) -> Option<usize> {
    let in_identifier = |c: char| c.is_alphanumeric() || c == '_';
    let stands_alone = |at: usize| {
        let before = words.starts_with(in_identifier) && code[..at].ends_with(in_identifier);
        let after =
            words.ends_with(in_identifier) && code[at + words.len()..].starts_with(in_identifier);
        !before && !after
    };
    code.match_indices(words).map(|(at, _)| at).find(|&at| stands_alone(at))
}

/// Reads the function whose `fn` stands at `start`, if it has a name and a body.
fn function_at(code: &str, start: usize) -> Option<Function<'_>> {
    let rest = code[start + "fn".len()..].trim_start();
    let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'))?;
    let name = rest.get(..length).filter(|name| !name.is_empty())?;
    let end = item_end(code, start);
    if !code[..end].ends_with('}') {
        return None;
    }
    let line = code[..start].matches('\n').count() + 1;
    Some(Function { name, line, lines: code[start..end].matches('\n').count() + 1 })
}

/// Where the item that starts at `start` ends: after its `;` or its last brace.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in code[start..].bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return start + offset + 1;
                }
            }
            b';' if depth == 0 => return start + offset + 1,
            _ => {}
        }
    }
    code.len()
}

/// Blanks every item under `#[cfg(test)]` in code without comments and literals.
fn blank_tests(code: &str) -> String {
    let mut production = code.to_owned();
    while let Some(start) = production.find(CFG_TEST) {
        let end = item_end(&production, start + CFG_TEST.len());
        let blanked = blank(&production[start..end]);
        production.replace_range(start..end, &blanked);
    }
    production
}

/// Replaces all of `text` but its line feeds by spaces, byte by byte.
fn blank(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// Blanks comments and literals.
fn blank_text(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut kept = 0;
    let mut at = 0;
    while at < text.len() {
        match text_end(text.as_bytes(), at) {
            Some(end) => {
                code.push_str(&text[kept..at]);
                code.push_str(&blank(&text[at..end]));
                (kept, at) = (end, end);
            }
            None => at += 1,
        }
    }
    code.push_str(&text[kept..]);
    code
}

/// Where the comment or literal that starts at `at` ends, if one does.
fn text_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let length = match rest {
        [b'/', b'/', ..] => rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment_length(rest),
        [b'"', ..] => 1 + quoted_length(&rest[1..], b'"'),
        [b'\'', b'\\', ..] => 1 + quoted_length(&rest[1..], b'\''),
        [b'\'', ..] => char_length(rest)?,
        [b'r', ..] if !ends_in_identifier(&bytes[..at]) => raw_string_length(rest)?,
        _ => return None,
    };
    Some(at + length)
}

fn block_comment_length(bytes: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] if depth == 1 => return at + 2,
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The length of what follows an opening quote, with the closing one.
fn quoted_length(bytes: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The length of a character literal; a lifetime has none.
fn char_length(bytes: &[u8]) -> Option<usize> {
    let width = match bytes.get(1)? {
        0..=0x7f => 1,
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    (bytes.get(1 + width) == Some(&b'\'')).then_some(width + 2)
}

/// The length of `r"…"` or `r#"…"#`; a raw identifier has none.
fn raw_string_length(bytes: &[u8]) -> Option<usize> {
    let hashes = bytes[1..].iter().take_while(|&&byte| byte == b'#').count();
    let opening = hashes + 2;
    if bytes.get(opening - 1) != Some(&b'"') {
        return None;
    }
    let closing = [&b"\""[..], &vec![b'#'; hashes]].concat();
    let body = bytes[opening..].windows(closing.len()).position(|window| window == closing)?;
    Some(opening + body + closing.len())
}

fn ends_in_identifier(bytes: &[u8]) -> bool {
    let literal_prefix = bytes.ends_with(b"b") || bytes.ends_with(b"c");
    let before = if literal_prefix { &bytes[..bytes.len() - 1] } else { bytes };
    before.last().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

#[cfg(test)]
mod tests;
