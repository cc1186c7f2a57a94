//! Every target over its committed seeds, as plain tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::TARGETS;

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

#[test]
fn every_target_and_no_other_has_seeds() {
    let folders = fs::read_dir(corpus()).expect("the corpus is committed");
    let folders: BTreeSet<_> = folders
        .map(|entry| entry.expect("a folder").file_name().into_string().expect("UTF-8"))
        .collect();
    assert_eq!(folders, TARGETS.iter().map(|target| target.name.to_owned()).collect());
}

#[test]
fn every_seed_is_survived() {
    for target in &TARGETS {
        let seeds = fs::read_dir(corpus().join(target.name)).expect("every target has seeds");
        for seed in seeds {
            let path = seed.expect("a seed").path();
            println!("{}", path.display());
            (target.run)(&fs::read(path).expect("a readable seed"));
        }
    }
}
