//! A peer's key runs out by itself. Ten seconds later clients apply the last complete netmap that they kept again: it
//! must not be one from before a node joined.

use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use mesh_integration::{Kind, Lab, Node, Server, Setup};
use tokio::time::{Instant, sleep};

scenario!(outlive_a_peers_key);

/// How long the peer's key lives on.
const LIFETIME: Duration = Duration::from_secs(8);

/// When clients have certainly applied what they kept: 10 s after the expiry, and a little.
///
/// Source: tailscale `ipn/ipnlocal/local.go`, the timer for the next key expiry.
const APPLIED_AFTER: Duration = Duration::from_secs(13);

async fn outlive_a_peers_key(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let alpha = Node::join(&server, "alpha", Kind::default(), &key).await?;
    let _beta = Node::join(&server, "beta", Kind::default(), &key).await?;
    alpha.reaches("beta").await?;

    let id = server.node("beta").await?.id;
    let expires_at = now() + LIFETIME;
    let expiry = ["nodes", "expire", "--identifier", &id, "--expiry", &expires_at.to_string()];
    server.cli(&expiry).await?;
    let _gamma = Node::join(&server, "gamma", Kind::default(), &key).await?;
    alpha.reaches("gamma").await?;

    let expired = |status: &mesh_integration::Status| {
        ensure!(status.peer("beta")?.expired, "its key still counts");
        Ok(())
    };
    alpha.until("beta's key runs out", expired).await?;
    let until = Instant::now() + APPLIED_AFTER;
    while Instant::now() < until {
        let status = alpha.status().await?;
        expired(&status)?;
        status.peer("gamma")?;
        sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the server judges by the system's time too")]
fn now() -> Timestamp {
    Timestamp::now()
}
