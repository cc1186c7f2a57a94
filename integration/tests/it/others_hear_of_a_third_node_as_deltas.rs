//! A third node joins, is renamed, tagged, expired and deleted; each time the others hear it in a message that
//! their clients handle incrementally, and never rebuild their netmap.

use anyhow::{Result, ensure};
use mesh_integration::{Kind, Lab, Node, Peer, Server, Setup, Status};

const INCREMENTAL: &str = "controlclient_map_response_handled_incrementally";

scenario!(watch_a_third);

async fn watch_a_third(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let mut alpha = Witness::join(&server, "alpha", &key).await?;
    let mut beta = Witness::join(&server, "beta", &key).await?;
    alpha.node.reaches("beta").await?;
    beta.node.reaches("alpha").await?;

    let _third = Node::join(&server, "gamma", Kind::default(), &key).await?;
    let id = server.node("gamma").await?.id;
    let both = [&mut alpha, &mut beta];
    hear(both, "joined", |status| status.peer("gamma").and_then(Peer::check_reachable)).await?;

    server.cli(&["nodes", "rename", "--identifier", &id, "delta"]).await?;
    let both = [&mut alpha, &mut beta];
    hear(both, "renamed", |status| {
        ensure!(status.peer("gamma").is_err(), "the old name is still there");
        status.peer("delta").map(drop)
    })
    .await?;

    server.cli(&["nodes", "tag", "--identifier", &id, "--tags", "tag:lab"]).await?;
    let both = [&mut alpha, &mut beta];
    hear(both, "tagged", |status| {
        let peer = status.peer("delta")?;
        ensure!(peer.tags == ["tag:lab"], "its tags are {:?}", peer.tags);
        Ok(())
    })
    .await?;

    server.cli(&["nodes", "expire", "--identifier", &id]).await?;
    let both = [&mut alpha, &mut beta];
    hear(both, "expired", |status| {
        ensure!(status.peer("delta")?.expired, "it is not expired");
        Ok(())
    })
    .await?;

    server.cli(&["nodes", "delete", "--identifier", &id, "--force"]).await?;
    hear([&mut alpha, &mut beta], "deleted", |status| {
        ensure!(status.peer("delta").is_err(), "it is still there");
        Ok(())
    })
    .await
}

/// A node and its counters.
struct Witness<'a> {
    node: Node<'a>,
    /// Full rebuilds after the first map, which is one.
    rebuilds: i64,
    /// Incremental messages when it last heard something.
    incremental: i64,
}

impl<'a> Witness<'a> {
    async fn join(server: &'a Server<'a>, name: &str, key: &str) -> Result<Self> {
        let node = Node::join(server, name, Kind::default(), key).await?;
        let rebuilds = node.full_rebuilds().await?;
        Ok(Self { node, rebuilds, incremental: 0 })
    }

    async fn check_delta(&mut self, what: &str) -> Result<()> {
        let name = self.node.name();
        let incremental = self.node.metric(INCREMENTAL).await?;
        let rebuilds = self.node.full_rebuilds().await?;
        ensure!(
            incremental > self.incremental,
            "{name}, third node {what}: no message was handled incrementally"
        );
        ensure!(
            rebuilds == self.rebuilds,
            "{name}, third node {what}: full rebuilds went from {} to {rebuilds}",
            self.rebuilds
        );
        self.incremental = incremental;
        Ok(())
    }
}

/// Waits until each witness sees what happened, and checks how it heard.
async fn hear(
    witnesses: [&mut Witness<'_>; 2],
    what: &str,
    check: impl Fn(&Status) -> Result<()>,
) -> Result<()> {
    for witness in witnesses {
        witness.node.until(&format!("third node {what}"), &check).await?;
        witness.check_delta(what).await?;
    }
    Ok(())
}
