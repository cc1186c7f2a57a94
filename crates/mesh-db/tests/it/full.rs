//! A disk that is full: refused, nothing broken, and over when there is room again.

use std::fs;
use std::path::Path;
use std::process::Command;

use mesh_db::{Database, Options};
use mesh_model::{Hostinfo, Node};
use mesh_store::{Persist as _, PersistError};
use tempfile::TempDir;

use crate::scratch::{TAILNET, batch, load, node, put_node, put_user, user};

/// A small file system of its own in a folder; it is gone when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where we may not mount: root may.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(folder.path());
        mount.output().is_ok_and(|done| done.status.success()).then(|| Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).output();
    }
}

/// A node that fills some pages.
fn large_node(id: u64) -> Node {
    let hostinfo = Hostinfo { os_version: "x".repeat(20_000), ..Hostinfo::default() };
    Node { hostinfo, ..node(u32::try_from(id).unwrap()) }
}

#[tokio::test]
async fn a_full_disk_is_told_of_and_harms_nothing() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("not permitted to mount a small disk: nothing was tested");
        return;
    };
    let path = disk.path().join("db.sqlite");
    let options =
        Options::Sqlite { path: path.clone(), write_ahead_log: true, wal_autocheckpoint: 1000 };
    let database = Database::open(&options).await.unwrap();
    load(&database).await;
    database.commit(&batch(1, [put_user(user(1))])).await.unwrap();
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let mut revision = 1;
    let error = loop {
        match database.commit(&batch(revision + 1, [put_node(large_node(revision))])).await {
            Ok(()) => revision += 1,
            Err(error) => break error,
        }
    };
    let PersistError::Unavailable(error) = error else { panic!("{error}") };
    assert!(error.to_string().contains("make room"), "{error}");
    let next = || batch(revision + 1, [put_node(large_node(revision))]);
    for _ in 0..3 {
        assert!(database.commit(&next()).await.is_err());
        database.ping().await.unwrap();
    }
    let taken = load(&database).await;
    assert_eq!((taken.revision, taken.tailnet.node_count() as u64), (revision, revision - 1));
    fs::remove_file(ballast).unwrap();
    database.commit(&next()).await.expect("there is room again");
    database.close().await;
    let database = Database::open(&options).await.unwrap();
    assert_eq!(database.load(TAILNET).await.unwrap().revision, revision + 1);
    database.close().await;
    assert_eq!(integrity(&path).await, "ok");
}

async fn integrity(path: &Path) -> String {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap()
}
