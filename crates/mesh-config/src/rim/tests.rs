use std::fs;

use tempfile::tempdir;

use super::{GatherError, default_data_dir, gather};
use crate::{CONFIG_BYTES_MAX, load};

#[test]
fn the_named_file_and_directory_are_gathered() {
    let directory = tempdir().expect("scratch");
    let config = directory.path().join("config.yaml");
    fs::write(&config, "listen_addr: :7\n").expect("written");
    let source = gather(Some(&config), Some(directory.path()), Vec::new()).expect("gathered");
    assert_eq!(source.data_dir, directory.path());
    assert_eq!(load(&source).expect("accepted").0.listen_addr.port(), 7);
}

#[test]
fn a_file_that_cannot_be_read_is_told() {
    let directory = tempdir().expect("scratch");
    let file = directory.path().join("config.yaml");
    let gathered = || gather(Some(&file), Some(directory.path()), Vec::new()).map(|_| ());
    assert!(matches!(gathered(), Err(GatherError::ReadConfig { .. })));
    fs::write(&file, b"a: \xff\n").expect("written");
    assert!(matches!(gathered(), Err(GatherError::ReadConfig { .. })));
    fs::write(&file, "#".repeat(CONFIG_BYTES_MAX + 1)).expect("written");
    assert!(matches!(gathered(), Err(GatherError::ConfigTooLong { .. })));
    fs::write(&file, "#".repeat(CONFIG_BYTES_MAX)).expect("written");
    assert!(gathered().is_ok());
}

#[test]
fn the_default_data_directory_is_ours() {
    assert!(default_data_dir().expect("a home").ends_with("meshcontrol"));
}
