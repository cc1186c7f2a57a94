//! One region of Go's relay and ours, in a mesh, with clients on either: they reach each other by relay alone. Once Go's is gone,
//! its clients come to ours, and all goes on.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_integration::{Client, Kind, Lab, Maker, Node, Relay, Server, eventually};

scenario!(carry);

const BYTES: usize = 2_000_000;

/// How soon those are at the other relay whose own is gone.
const BACK_MAX: Duration = Duration::from_secs(20);

async fn carry(lab: &Lab) -> Result<()> {
    let (mut go, mut ours) =
        (Relay::new(lab, "go", Maker::Go, 900)?, Relay::new(lab, "ours", Maker::Ours, 900)?);
    // Each makes its certificate, for the other to trust.
    go.launch().await?;
    go.stop().await?;
    ours.mesh_with(&go)?;
    ours.launch().await?;
    go.mesh_with(&ours)?;
    go.launch().await?;
    go.put_gate().await?;
    let (server, key) = Server::start_beside(lab, &[&[&go, &ours]]).await?;
    let clients = [Client::Tsnet, Client::Ours];
    let join = async |name: &'static str, client| {
        let node = Node::join(&server, name, Kind::by_relay(client), &key).await?;
        node.echo(7).await?;
        let told = "is at a relay";
        node.until(told, |status| {
            let home = &status.own()?.relay;
            ensure!(home.ends_with("900"), "at home in {home:?}");
            Ok(())
        })
        .await?;
        anyhow::Ok(node)
    };
    let at_go = [join("stock-at-go", clients[0]).await?, join("ours-at-go", clients[1]).await?];
    at_go[0].reaches("ours-at-go").await?;
    let neighbour = at_go[1].reaches("stock-at-go").await?;
    at_go[1].transfer_to(&neighbour, 7, 1000).await.context("at Go's relay")?;
    go.shut_gate();
    let here = [join("stock-here", clients[0]).await?, join("ours-here", clients[1]).await?];
    for there in &at_go {
        for node in &here {
            let peer = there.reaches(node.name()).await?;
            let back = node.reaches(there.name()).await?;
            for (from, to) in [(there, &peer), (node, &back)] {
                let transfer = from.transfer_to(to, 7, BYTES).await;
                let what = || format!("{} to {}", from.name(), to.name);
                ensure!(transfer.with_context(what)?.cur_addr.is_empty(), "it went directly");
            }
        }
    }

    let peer = here[0].reaches("stock-at-go").await?;
    let running = here[0].open(peer.port(7)?).await?;
    running.exchange(10_000).await.context("before")?;
    go.stop().await?;
    eventually(BACK_MAX, "a connection goes on", async || running.exchange(10_000).await).await
}
