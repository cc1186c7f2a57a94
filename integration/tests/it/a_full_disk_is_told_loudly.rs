//! The disk fills up: registrations are refused and an ERROR says why, map streams go on, the database is not
//! damaged; and when there is room again, all is well by itself. Only SQLite's disk is ours to fill.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_integration::{Company, Crowd, Engine, Lab, Server, Setup, Visitor, eventually};

/// Enough for a server to start, and for some hundred nodes.
const DISK_BYTES: u64 = 16 << 20;

const CLIENTS: usize = 10;

/// What is written in place and to the rest of a page needs no more room, but that has an end.
const REGISTRATIONS_MAX: usize = 3000;

/// How soon all must be well once there is room.
const RECOVERY_MAX: Duration = Duration::from_secs(10);

#[test]
fn on_sqlite() {
    mesh_integration::run(Engine::Sqlite, Company::Welcome, fill_the_disk);
}

async fn fill_the_disk(lab: &Lab) -> Result<()> {
    let disk = lab.small_disk(DISK_BYTES).context(
        "this scenario mounts a file system in memory: run it as root, outside of containers that forbid it",
    )?;
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let dialer = server.dialer()?;
    let crowd = Crowd::join(&dialer, &key, "before", CLIENTS).await?;
    let mut answered: BTreeSet<_> = crowd.node_keys().collect();

    disk.fill()?;
    let mut refusal = None;
    for number in 0..REGISTRATIONS_MAX {
        match Visitor::join(&dialer, &key, &format!("meanwhile-{number}")).await {
            Ok(visitor) => drop(answered.insert(visitor.node_key())),
            Err(error) => {
                refusal = Some(format!("{error:#}"));
                break;
            }
        }
    }
    let refusal = refusal.context("nothing is refused, although the disk is full")?;
    eprintln!("after {} nodes: {refusal}", answered.len());
    ensure!(crowd.streams_lost() == 0, "{} map streams ended", crowd.streams_lost());
    server.check_kept(&answered).await?;
    server.check_database_file().await?;

    disk.clear()?;
    let visitor = eventually(RECOVERY_MAX, "a node registers", async || {
        Visitor::join(&dialer, &key, "after").await
    })
    .await?;
    answered.insert(visitor.node_key());
    crowd.heard(0, 7001).await?;
    server.check_kept(&answered).await?;
    server.kill().await?;
    server.launch().await?;
    server.check_kept(&answered).await?;
    server.check_database_file().await?;
    lab.provokes("the database does not take changes");
    server.stop().await
}
