//! Reading adapters.

use std::path::PathBuf;

use super::{SHIPPED, Side, Words};
use crate::command::root;

#[test]
fn every_adapter_of_the_checkout_is_one() {
    let files = root().join(SHIPPED).read_dir().unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let adapters: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|it| it == "yaml")).collect();
    assert!(adapters.len() >= 4);
    for path in adapters {
        Side::new(path.to_str().unwrap(), PathBuf::new()).unwrap();
    }
}

#[test]
fn only_the_adapter_for_postgres_wants_one() {
    for (name, wants) in [("meshcontrol-postgres", true), ("meshcontrol-sqlite", false)] {
        assert_eq!(Side::new(name, PathBuf::new()).unwrap().wants_postgres(), wants, "{name}");
    }
}

#[test]
fn words_are_filled_in_and_other_braces_stay() {
    let words = Words::default().with("dir", "/tmp/x").with("port1", "80");
    assert_eq!(words.fill("{dir}/a {port1} {port2} {}"), "/tmp/x/a 80 {port2} {}");
}

#[test]
fn a_side_is_named_for_its_binary_too() {
    for text in ["headscale", "headscale=/nowhere/at/all", "nothing-of-the-kind=/bin/sh"] {
        text.parse::<Side>().unwrap_err();
    }
    let side: Side = "headscale=/proc/self/exe".parse().unwrap();
    let program = side.binary.file_name().unwrap().to_str().unwrap();
    assert_eq!(side.name, format!("headscale@{program}"));
}
