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
fn a_directory_that_is_missing_is_made_for_its_owner_alone() {
    let parent = directory();
    let path = parent.path().join("nodes/one");
    FileStore::open(&path).expect("a store");
    let mode = fs::metadata(&path).expect("the directory").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_save_that_was_broken_off_leaves_the_state_before_it() {
    let directory = directory();
    let store = FileStore::open(directory.path()).expect("a store");
    let state = NodeState::load_or_make(&store).expect("a first state");
    fs::write(directory.path().join("node.json.new"), b"{\"vers").expect("written");
    assert_eq!(NodeState::load_or_make(&store).expect("the state"), state);
    state.save(&store).expect("saved");
    assert_eq!(NodeState::load_or_make(&store).expect("the state"), state);
}

#[test]
fn a_directory_has_one_node() {
    let directory = directory();
    let first = FileStore::open(directory.path()).expect("a store");
    let second = FileStore::open(directory.path()).expect_err("in use");
    assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
    assert!(second.to_string().ends_with("give each node its own"), "{second}");
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
fn state_that_is_cut_off_anywhere_is_refused_and_kept() {
    let store = MemoryStore::default();
    NodeState::load_or_make(&store).expect("a first state");
    let whole = store.load().expect("loaded").expect("saved");
    for length in 0..whole.len() {
        check_refused(&whole[..length], "damaged");
    }
}

#[test]
fn state_that_is_too_long_is_refused_and_kept() {
    let directory = directory();
    let path = directory.path().join("node.json");
    let length = usize::try_from(STATE_BYTES_MAX).expect("a short file") + 1;
    fs::write(&path, vec![b' '; length]).expect("written");
    let store = FileStore::open(directory.path()).expect("a store");
    let error = NodeState::load_or_make(&store).expect_err("too long");
    assert!(matches!(error, StateError::Io(_)), "{error:?}");
    assert_eq!(fs::metadata(&path).expect("the file").len(), STATE_BYTES_MAX + 1);
}

#[test]
fn state_of_a_newer_version_is_refused_and_kept() {
    check_refused(br#"{"version":2,"keys":{}}"#, "version 2, newer than 1");
}
