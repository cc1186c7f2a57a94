//! The list against what is there.

use std::path::PathBuf;

use super::super::source::Source;
use super::{Sizes, compare, measure, parse};

/// Problems as printed when a function `long` of `lines` lines meets `list`.
fn check(lines: usize, list: &str) -> Vec<String> {
    let body = "    step();\n".repeat(lines - 2);
    let text = format!("//! Doc.\nfn long() {{\n{body}}}\nfn short() {{\n}}\n");
    let source = Source::new(PathBuf::from("a.rs"), text);
    compare(&measure(&source), &parse(list)).iter().map(ToString::to_string).collect()
}

#[test]
fn a_function_of_seventy_lines_is_no_problem() {
    assert!(check(70, "").is_empty());
}

#[test]
fn a_longer_function_is_a_problem_unless_listed() {
    assert_eq!(check(71, ""), ["a.rs:2: a.rs::long has 71 lines: cut it along what it owns"]);
    assert!(check(71, "# why\na.rs::long 71\n").is_empty());
}

#[test]
fn a_listed_function_may_not_grow() {
    assert_eq!(
        check(73, "a.rs::long 72\n"),
        ["a.rs:2: a.rs::long has 73 lines: cut it along what it owns"]
    );
}

#[test]
fn the_list_follows_what_shrinks() {
    assert_eq!(
        check(71, "a.rs::long 90\n"),
        ["crates/xtask/sizes.txt:1: a.rs::long has shrunk: write 71"]
    );
    assert_eq!(
        check(70, "a.rs::long 90\n"),
        ["crates/xtask/sizes.txt:1: a.rs::long is not too long any more: remove this line"]
    );
}

#[test]
fn a_file_is_measured_without_its_tests() {
    let production = "const A: u8 = 0;\n".repeat(590);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    fn a() {}\n".repeat(100));
    let sizes = measure(&Source::new(PathBuf::from("a.rs"), format!("{production}{tests}")));
    assert_eq!(sizes, Sizes::new());
    let sizes = measure(&Source::new(PathBuf::from("a.rs"), production.repeat(2)));
    assert_eq!(sizes, Sizes::from([("a.rs".to_owned(), (1180, 1))]));
}
