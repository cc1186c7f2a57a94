//! The server, with TLS, is stopped for 5 s: clients keep talking meanwhile, are back within 2 s of its start, and see
//! a node that joined after.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup, eventually};
use tokio::time::{Instant, sleep_until};

scenario!(restart, alone);

/// How long the server is away.
const AWAY: Duration = Duration::from_secs(5);
/// How soon after its start clients are back.
const BACK_MAX: Duration = Duration::from_secs(2);

async fn restart(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup { tls: true, ..Setup::default() }).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let old = Kind { client: Client::TsnetOld, ..Kind::default() };
    let alpha = Node::join(&server, "alpha", Kind::default(), &key).await?;
    let beta = Node::join(&server, "beta", old, &key).await?;
    beta.echo(7).await?;
    let peer = alpha.reaches("beta").await?;
    beta.reaches("alpha").await?;
    alpha.reaches_directly(&peer).await?;

    server.stop().await?;
    let return_at = Instant::now() + AWAY;
    while Instant::now() < return_at {
        alpha.transfer_to(&peer, 7, 100_000).await?;
        sleep_until((Instant::now() + Duration::from_millis(500)).min(return_at)).await;
    }
    let start = Instant::now();
    server.launch().await?;
    eventually(
        BACK_MAX.saturating_sub(start.elapsed()),
        "both have a map stream again",
        async || {
            for name in ["alpha", "beta"] {
                ensure!(server.node(name).await?.online, "{name} is offline");
            }
            Ok(())
        },
    )
    .await?;
    alpha.transfer_to(&peer, 7, 100_000).await?;

    let gamma = Node::join(&server, "gamma", Kind::default(), &key).await?;
    gamma.echo(7).await?;
    for node in [&alpha, &beta] {
        gamma.reaches(node.name()).await?;
        let peer = node.reaches("gamma").await?;
        node.transfer_to(&peer, 7, 100_000).await?;
    }
    server.stop().await
}
