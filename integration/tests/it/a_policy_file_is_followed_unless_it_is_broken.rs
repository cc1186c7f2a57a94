//! A server whose policy is a file: running clients feel a change of the file, with SIGHUP and without; a broken file changes
//! nothing, which the server says, until it is repaired.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_integration::{Kind, Lab, Node, Server, Setup, eventually};
use tokio::time::{Instant, sleep};

scenario!(follow);

const OPEN: &str = r#"{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}"#;
const CLOSED: &str = r#"{
    // nobody may do anything
    "acls": [],
}"#;
/// Undefined, and so an error that names it and where it stands.
const BROKEN: &str = r#"{
    "acls": [{"action": "accept", "src": ["group:admins"], "dst": ["*:*"]}],
}"#;
/// What the server logs of it.
const ALARM: &str = "the policy file is not in force, the last good policy stays";
/// How long a broken file is borne before clients are asked whether they felt it; the server looks twice a second.
const BORNE: Duration = Duration::from_secs(2);

async fn follow(lab: &Lab) -> Result<()> {
    lab.provokes(ALARM);
    let setup = Setup { policy_file: Some(OPEN), ..Setup::default() };
    let server = Server::start(lab, setup).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let alpha = Node::join(&server, "alpha", Kind::default(), &key).await?;
    let beta = Node::join(&server, "beta", Kind::default(), &key).await?;
    alpha.reaches("beta").await?;
    beta.reaches("alpha").await?;

    server.write_policy_file(CLOSED)?;
    let start = Instant::now();
    alpha.loses("beta").await?;
    eprintln!("the changed file was felt after {:.0?}", start.elapsed());

    server.write_policy_file(OPEN)?;
    let start = Instant::now();
    server.hang_up().await?;
    alpha.reaches("beta").await?;
    beta.reaches("alpha").await?;
    eprintln!("with SIGHUP it was felt after {:.0?}", start.elapsed());

    server.write_policy_file(BROKEN)?;
    eventually(Duration::from_secs(10), "the server says what is broken", async || {
        let log = server.log()?;
        let alarm = log.iter().find(|line| line.message.starts_with(ALARM));
        let told = alarm.map(|line| line.message.as_str()).unwrap_or_default();
        ensure!(told.contains("group:admins") && told.contains('2'), "it says {told:?}");
        Ok(())
    })
    .await?;
    sleep(BORNE).await;
    alpha.reaches("beta").await?;
    beta.reaches("alpha").await?;

    server.write_policy_file(CLOSED)?;
    alpha.loses("beta").await?;
    server.stop().await
}
