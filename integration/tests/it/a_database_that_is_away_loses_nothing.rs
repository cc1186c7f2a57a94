//! The database stops for ten seconds: SQLite because another process holds its lock, Postgres because all of its
//! processes are halted. Map streams and the command line's questions go on, nothing that was answered is lost, and
//! afterwards all is well by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_integration::{Crowd, Lab, Server, Setup, Visitor, eventually};
use tokio::time::{Instant, sleep, timeout};

scenario!(ten_seconds_without, alone);

const CLIENTS: usize = 20;

/// How long the database is away.
const AWAY: Duration = Duration::from_secs(10);

/// Pause between two registrations that are tried meanwhile.
const PAUSE: Duration = Duration::from_millis(250);

/// How long a client waits for the answer to its registration.
const PATIENCE: Duration = Duration::from_secs(3);

/// How soon all must be well once the database is back.
const RECOVERY_MAX: Duration = Duration::from_secs(10);

async fn ten_seconds_without(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let dialer = server.dialer()?;
    let crowd = Crowd::join(&dialer, &key, "before", CLIENTS).await?;
    let mut answered: BTreeSet<_> = crowd.node_keys().collect();

    let outage = server.stop_database()?;
    let end = Instant::now() + AWAY;
    let (mut refused, mut number) = (0, 0);
    while Instant::now() < end {
        ensure!(server.nodes().await?.len() >= CLIENTS, "nodes are missing while it is away");
        match timeout(PATIENCE, Visitor::join(&dialer, &key, &format!("meanwhile-{number}"))).await
        {
            Ok(Ok(visitor)) => drop(answered.insert(visitor.node_key())),
            Ok(Err(_)) | Err(_) => refused += 1,
        }
        number += 1;
        sleep(PAUSE).await;
    }
    ensure!(refused > 0, "nothing was refused: the database was not away");
    ensure!(crowd.streams_lost() == 0, "{} map streams ended", crowd.streams_lost());
    drop(outage);

    let back_at = Instant::now();
    let visitor = eventually(RECOVERY_MAX, "a node registers", async || {
        Visitor::join(&dialer, &key, "after").await
    })
    .await?;
    answered.insert(visitor.node_key());
    let recovered = back_at.elapsed();
    let heard = crowd.heard(0, 7001).await?;
    ensure!(heard.len() >= CLIENTS - 1, "only {} hear of a change", heard.len());
    ensure!(crowd.streams_lost() == 0, "{} map streams ended", crowd.streams_lost());
    server.check_kept(&answered).await?;
    eprintln!(
        "{refused} of {number} registrations were not answered meanwhile; the next was {recovered:.2?} after the end"
    );

    server.kill().await?;
    server.launch().await?;
    server.check_kept(&answered).await?;
    lab.provokes("the database does not take changes");
    server.stop().await
}
