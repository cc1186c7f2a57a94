//! Symbols, links and paths in a line of prose.

use std::path::Path;

use super::{Symbol, check_links, check_paths, code_spans, parse_symbol};
use crate::command::root;

#[test]
fn calls_and_paths_are_symbols() {
    let symbol =
        |path: &[&'static str], is_function| Some(Symbol { path: path.to_vec(), is_function });
    assert_eq!(parse_symbol("State::apply(command, now)"), symbol(&["State", "apply"], true));
    assert_eq!(parse_symbol("mesh_netmap::full"), symbol(&["mesh_netmap", "full"], false));
    assert_eq!(parse_symbol("parse()"), symbol(&["parse"], true));
}

#[test]
fn other_code_is_no_symbol() {
    for span in ["tokio", "/ts2021", "cargo xtask tidy", "x: y", "--listen", "::"] {
        assert_eq!(parse_symbol(span), None, "{span}");
    }
}

#[test]
fn spans_are_what_stands_between_backticks() {
    assert_eq!(code_spans("a `b` c `d::e` f").collect::<Vec<_>>(), ["b", "d::e"]);
}

#[test]
fn a_link_must_lead_somewhere() {
    let page = Path::new("crates/page.md");
    assert!(
        check_links(&root(), page, "[a](xtask/Cargo.toml#top) [b](https://x.example/)").is_empty()
    );
    assert_eq!(
        check_links(&root(), page, "[a](nowhere.md)"),
        ["the link to nowhere.md leads nowhere: mend or drop it"]
    );
}

#[test]
fn a_path_must_lead_somewhere() {
    assert!(check_paths(&root(), "`crates/xtask` and `crates/<name>/src`").is_empty());
    assert_eq!(
        check_paths(&root(), "`crates/nothing.rs`"),
        ["there is no crates/nothing.rs: mend or drop it"]
    );
}
