use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::*;

#[test]
fn every_file_is_built_in() {
    for (engine, steps) in [("sqlite", SQLITE), ("postgres", POSTGRES)] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations").join(engine);
        let files: BTreeSet<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let built_in: BTreeSet<_> = steps.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(files, built_in, "{engine}");
    }
}

#[test]
fn steps_are_in_order_and_well_named() {
    let versions: Vec<_> = SQLITE.iter().map(|(name, _)| version(name)).collect();
    assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
    assert_eq!(versions.last(), Some(&newest(SQLITE)));
    for (name, _) in SQLITE {
        assert_eq!(name.find('_'), Some("YYYYMMDDHHMMSS".len()), "{name}");
    }
}
