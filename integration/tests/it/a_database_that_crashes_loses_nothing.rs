//! Postgres crashes three times while nodes register: who was let in is there, no address is there twice, and
//! afterwards all is well by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_integration::{Company, Crowd, Engine, Lab, Server, Setup, Visitor, eventually};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const CLIENTS: usize = 10;

const CRASHES: usize = 3;

/// How many register around each crash, all at once.
const REGISTRATIONS: usize = 60;

/// How far into the registrations the crash comes.
const INTO: Duration = Duration::from_millis(60);

/// How long a client waits for the answer to its registration.
const PATIENCE: Duration = Duration::from_secs(5);

/// How soon all must be well after a crash.
const RECOVERY_MAX: Duration = Duration::from_secs(20);

#[test]
fn on_postgres() {
    mesh_integration::run(Engine::Postgres, Company::Unwelcome, crashes);
}

async fn crashes(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let dialer = server.dialer()?;
    let crowd = Crowd::join(&dialer, &key, "before", CLIENTS).await?;
    let mut answered: BTreeSet<_> = crowd.node_keys().collect();
    for crash in 0..CRASHES {
        let mut registrations = JoinSet::new();
        for number in 0..REGISTRATIONS {
            let (dialer, key) = (dialer.clone(), key.clone());
            registrations.spawn(async move {
                let name = format!("crash-{crash}-{number}");
                timeout(PATIENCE, Visitor::join(&dialer, &key, &name)).await
            });
        }
        sleep(INTO).await;
        server.crash_database()?;
        let outcomes = registrations.join_all().await;
        let let_in = outcomes.into_iter().filter_map(|outcome| outcome.ok()?.ok());
        let before = answered.len();
        answered.extend(let_in.map(|visitor| visitor.node_key()));
        eprintln!("{} of {REGISTRATIONS} were let in around a crash", answered.len() - before);
        let visitor = eventually(RECOVERY_MAX, "a node registers", async || {
            Visitor::join(&dialer, &key, &format!("after-{crash}")).await
        })
        .await?;
        answered.insert(visitor.node_key());
        server.check_kept(&answered).await?;
    }
    ensure!(crowd.streams_lost() == 0, "{} map streams ended", crowd.streams_lost());
    server.kill().await?;
    server.launch().await?;
    server.check_kept(&answered).await?;
    lab.provokes("the database does not take changes");
    lab.tolerates("a commit got no answer");
    lab.tolerates("cannot find out what became of a commit");
    server.stop().await
}
