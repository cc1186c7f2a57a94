//! Both database engines have the same migrations by name, so that a schema step is never made on one only.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::Problem;
use super::house::House;

/// Where the migrations of each engine are.
const ENGINES: [&str; 2] = ["migrations/sqlite", "migrations/postgres"];

/// Compares the file names of both engines and their form.
///
/// # Errors
/// When a folder cannot be read.
pub(super) fn check(house: &House) -> Result<Vec<Problem>> {
    let [one, other] = ENGINES.map(|folder| names(&house.root.join(folder)));
    let (one, other) = (one?, other?);
    let mut problems = Vec::new();
    for name in one.union(&other) {
        if !is_well_named(name) {
            let what = "migrations are called YYYYMMDDHHMMSS_what.sql";
            problems.push(Problem::new(Path::new(ENGINES[0]).join(name), 1, what));
        }
    }
    for name in one.symmetric_difference(&other) {
        let [has, lacks] = if one.contains(name) { ENGINES } else { [ENGINES[1], ENGINES[0]] };
        let what =
            format!("{lacks} has no migration of this name: write the step for both engines");
        problems.push(Problem::new(Path::new(has).join(name), 1, what));
    }
    Ok(problems)
}

fn names(folder: &Path) -> Result<BTreeSet<String>> {
    if !folder.is_dir() {
        return Ok(BTreeSet::new());
    }
    fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn is_well_named(name: &str) -> bool {
    let Some((stamp, what)) = name.split_once('_') else { return false };
    let has_stamp = stamp.len() == 14 && stamp.bytes().all(|byte| byte.is_ascii_digit());
    has_stamp && Path::new(what).extension().is_some_and(|extension| extension == "sql")
}
