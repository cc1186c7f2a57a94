//! The file of an SQLite database.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use mesh_db::{Database, Options};

use crate::scratch::{Scratch, commit, contents, load, node, put_node, put_user, user};

#[tokio::test]
async fn file_and_folder_are_ours_alone() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("new/data");
    let path = inner.join("db.sqlite");
    let options =
        Options::Sqlite { path: path.clone(), write_ahead_log: true, wal_autocheckpoint: 1000 };
    let database = Database::open(&options).await.unwrap();
    commit(&database, [put_user(user(1))]).await.unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(inner.clone()), 0o700);
    for file in ["db.sqlite", "db.sqlite-wal", "db.sqlite-shm"] {
        assert_eq!(mode(inner.join(file)), 0o600, "{file}");
    }
    database.close().await;
    let left: Vec<_> =
        fs::read_dir(inner).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["db.sqlite"], "a closed database is one file");
}

#[tokio::test]
async fn what_was_committed_survives_the_process() {
    let scratch = Scratch::sqlite();
    let database = scratch.open().await;
    commit(&database, [put_user(user(1)), put_node(node(1))]).await.unwrap();
    // As `kill -9` leaves them: the file and its log, without a last checkpoint.
    let copy = Scratch::sqlite();
    for suffix in ["", "-wal"] {
        let file = |scratch: &Scratch| format!("{}{suffix}", scratch.path().display());
        fs::copy(file(&scratch), file(&copy)).unwrap();
    }
    let survivor = copy.open().await;
    assert_eq!(contents(&load(&survivor).await.tailnet).nodes, [node(1)]);
    commit(&survivor, [put_node(node(2))]).await.unwrap();
}

#[tokio::test]
async fn a_torn_log_costs_only_what_was_not_committed() {
    let scratch = Scratch::sqlite();
    let database = scratch.open().await;
    commit(&database, [put_user(user(1)), put_node(node(1))]).await.unwrap();
    let wal = format!("{}-wal", scratch.path().display());
    let durable = fs::metadata(&wal).unwrap().len();
    commit(&database, [put_node(node(2))]).await.unwrap();
    let whole = fs::metadata(&wal).unwrap().len();
    for length in (durable..=whole).step_by(500) {
        let copy = Scratch::sqlite();
        fs::copy(scratch.path(), copy.path()).unwrap();
        let log = fs::read(&wal).unwrap();
        let torn = &log[..usize::try_from(length).unwrap()];
        fs::write(format!("{}-wal", copy.path().display()), torn).unwrap();
        let survivor = copy.open().await;
        let loaded = load(&survivor).await;
        let nodes = contents(&loaded.tailnet).nodes;
        assert_eq!(nodes.len() as u64, loaded.revision, "all of a batch or nothing");
        assert_eq!(nodes[0], node(1));
    }
}

#[tokio::test]
async fn it_works_without_a_log_too() {
    let scratch = Scratch::sqlite();
    let options =
        Options::Sqlite { path: scratch.path(), write_ahead_log: false, wal_autocheckpoint: 0 };
    let database = Database::open(&options).await.unwrap();
    commit(&database, [put_user(user(1)), put_node(node(1))]).await.unwrap();
    drop(database);
    let database = scratch.open().await;
    assert_eq!(contents(&load(&database).await.tailnet).nodes, [node(1)]);
}
