//! A client that registers anew says nothing of its home relay for some 20 s. Others can reach it by relay all the same, at
//! once: after a forced re-auth, and after it was deleted and joined again.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup, Up};

scenario!(come_home);

/// How soon others can reach it. A first packet may come before it is back at the relay, and is sent again after
/// 5 s; without its home they wait for its next netcheck, 17 s or more.
const REACHED_MAX: Duration = Duration::from_secs(10);

async fn come_home(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let relayed = Kind::by_relay(Client::Tsnet);
    let alpha = Node::join(&server, "alpha", relayed, &key).await?;
    let beta = Node::join(&server, "beta", relayed, &key).await?;
    beta.echo(7).await?;
    beta.reaches("alpha").await?;
    let peer = alpha.reaches("beta").await?;
    alpha.transfer_to(&peer, 7, 1000).await?;

    beta.up(Up { auth_key: Some(&key), force_reauth: true, ..Up::default() }).await?;
    let fresh = beta
        .until("runs with a new node key", |status| {
            ensure!(status.state == "Running", "state {}", status.state);
            let own = status.own()?;
            ensure!(own.key != peer.key, "the node key is the old one");
            Ok(own.key.clone())
        })
        .await?;
    check_reached(&alpha, &fresh).await?;

    let id = server.node("beta").await?.id;
    server.cli(&["nodes", "delete", "--identifier", &id, "--force"]).await?;
    beta.until("needs a login", |status| {
        ensure!(status.state == "NeedsLogin", "state {}", status.state);
        Ok(())
    })
    .await?;
    alpha.loses("beta").await?;
    beta.up(Up { auth_key: Some(&key), ..Up::default() }).await?;
    let fresh = beta.running().await?.key;
    check_reached(&alpha, &fresh).await
}

/// Fails unless alpha knows the relay of beta as it is with this node key, and gets through to it.
async fn check_reached(alpha: &Node<'_>, key: &str) -> Result<()> {
    let peer = alpha
        .until_within(REACHED_MAX, "knows beta's relay", |status| {
            let peer = status.peer("beta")?;
            ensure!(peer.key == key, "it knows an old beta");
            ensure!(!peer.relay.is_empty(), "it knows none");
            Ok(peer.clone())
        })
        .await?;
    let transfer = alpha.transfer_to(&peer, 7, 1000).await?;
    let elapsed = Duration::from_secs_f64(transfer.elapsed_ms / 1e3);
    ensure!(elapsed < REACHED_MAX, "it took {elapsed:?} to reach beta");
    Ok(())
}
