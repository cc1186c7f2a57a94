use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn keys_outlive_the_process_and_only_their_owner_reads_them() {
    let directory = directory();
    let store = FileStore::open(directory.path()).expect("a store");
    let mut state = NodeState::load_or_make(&store).expect("a first state");
    state.is_registered = true;
    state.save(&store).expect("saved");
    drop(store);
    let store = FileStore::open(directory.path()).expect("the store again");
    assert_eq!(NodeState::load_or_make(&store).expect("the state"), state);
    let mode = fs::metadata(&store.path).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_directory_has_one_node() {
    let directory = directory();
    let first = FileStore::open(directory.path()).expect("a store");
    let second = FileStore::open(directory.path()).expect_err("in use");
    assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
    drop(first);
    FileStore::open(directory.path()).expect("free again");
}

/// What is not understood is refused in words, and left as it is.
fn check_refused(stored: &[u8], error: &str) {
    let store = MemoryStore::default();
    store.save(stored).expect("saved");
    let refused = NodeState::load_or_make(&store).expect_err("not a state");
    assert!(refused.to_string().contains(error), "{refused}");
    assert_eq!(store.load().expect("loaded").as_deref(), Some(stored));
}

#[test]
fn damaged_state_is_refused_and_kept() {
    check_refused(b"", "damaged");
    check_refused(br#"{"version":1,"machine_key":"privkey:00"#, "damaged");
    check_refused(br#"{"version":1}"#, "damaged key");
}

#[test]
fn state_of_a_newer_version_is_refused_and_kept() {
    check_refused(br#"{"version":2,"keys":{}}"#, "version 2, newer than 1");
}
