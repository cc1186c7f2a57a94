//! The file of what is usual.

use std::collections::BTreeMap;

use super::{Session, guarded, read, written};

#[test]
fn what_is_written_is_read() {
    let costs = BTreeMap::from([("W1-200".to_owned(), 0.25), ("W2-200".to_owned(), 1.5)]);
    assert_eq!(read(&written(&costs)).unwrap(), costs);
    for text in ["W1-200", "W1-200 fast"] {
        read(text).unwrap_err();
    }
}

#[test]
fn guarded_workloads_are_small() {
    let titles: Vec<_> = guarded().iter().map(Session::title).collect();
    assert_eq!(titles, ["W1-200", "W2-200"]);
}
