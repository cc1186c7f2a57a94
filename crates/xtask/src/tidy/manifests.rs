//! What every manifest says: lints from the workspace, a reason behind each dependency, a crate doc.

use super::Problem;
use super::house::{House, list_members};

/// Checks the root manifest, every member's, and the head of every file.
pub(super) fn check(house: &House) -> Vec<Problem> {
    let mut problems = check_members(&house.manifest);
    problems.extend(check_reasons(&house.manifest));
    for member in &house.members {
        if !opts_into_lints(&member.manifest) {
            let what =
                "no `[lints] workspace = true`: every crate keeps the lints of the workspace";
            problems.push(Problem::new(&member.manifest_path, 1, what));
        }
        for source in &member.sources {
            let needed = source.is_production() || source.path == member.crate_root;
            if needed && !source.text.starts_with("//!") {
                let what =
                    "no `//!` at the top: say what is here, for whom, and what is left to others";
                problems.push(Problem::new(&source.path, 1, what));
            }
        }
    }
    problems
}

/// Every member has a comment and stands under a layer.
fn check_members(manifest: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    for member in list_members(manifest) {
        if member.layer.is_none() || !member.has_comment {
            let what = format!("{} needs a layer above it and a `# what` behind it", member.path);
            problems.push(Problem::new("Cargo.toml", member.line, what));
        }
    }
    problems
}

/// Every dependency that is not ours says why it is there.
fn check_reasons(manifest: &str) -> Vec<Problem> {
    let lines = manifest.lines().enumerate();
    lines
        .skip_while(|(_, line)| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|(_, line)| !line.starts_with('['))
        .filter(|(_, line)| line.contains('=') && !line.starts_with('#'))
        .filter(|(_, line)| !line.contains("path = ") && !line.contains(" # "))
        .map(|(index, line)| {
            let name = line.split_whitespace().next().unwrap_or(line);
            Problem::new("Cargo.toml", index + 1, format!("{name} needs a `# why` behind it"))
        })
        .collect()
}

fn opts_into_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().skip_while(|line| *line != "[lints]");
    lines.nth(1) == Some("workspace = true")
}

/// The line, counted from 1, on which a manifest names `dependency`; the first line if none does.
pub(super) fn line_of(manifest: &str, dependency: &str) -> usize {
    let names = |line: &str| {
        let rest = line.strip_prefix(dependency);
        rest.is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
    };
    manifest.lines().position(names).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests;
