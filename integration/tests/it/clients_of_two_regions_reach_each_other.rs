//! Two regions with a relay each, and clients at home in one or the other: they reach each other by relay alone.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_integration::{Client, Kind, Lab, Maker, Node, Relay, Server, eventually, write_derp_map};

scenario!(reach);

const BYTES: usize = 1_000_000;

/// How soon the server takes in another DERP map.
const TOLD_MAX: Duration = Duration::from_secs(15);

async fn reach(lab: &Lab) -> Result<()> {
    let [first, second] =
        [("first", 900), ("second", 901)].map(|(name, id)| Relay::new(lab, name, Maker::Ours, id));
    let (first, second) = (first?, second?);
    first.launch().await?;
    second.launch().await?;
    let (server, key) = Server::start_beside(lab, &[&[&first]]).await?;
    let mut early = Vec::new();
    for (name, client) in [("early-stock", Client::Tsnet), ("early-ours", Client::Ours)] {
        let node = Node::join(&server, name, Kind::by_relay(client), &key).await?;
        node.echo(7).await?;
        early.push(node);
    }
    early[0].reaches("early-ours").await?;
    early[1].reaches("early-stock").await?;

    // Who is at home in a region stays, unless another is nearer by far; who comes goes to the one that is liked best.
    write_derp_map(lab, &[&[&first], &[&second]])?;
    eventually(TOLD_MAX, "the server tells of both regions", async || {
        let map = server.cli(&["derp-map", "show"]).await?;
        ensure!(map.contains("region-901"), "{map}");
        Ok(())
    })
    .await?;
    let late = Node::join(&server, "late", Kind::by_relay(Client::Tsnet), &key).await?;
    late.echo(7).await?;
    for node in &early {
        let there = node.reaches("late").await?;
        let back = late.reaches(node.name()).await?;
        let homes = [&back.relay, &there.relay];
        let are_apart = homes[0].ends_with("900") && homes[1].ends_with("901");
        ensure!(are_apart, "at home in {homes:?}");
        for (from, to) in [(node, &there), (&late, &back)] {
            let transfer = from.transfer_to(to, 7, BYTES).await;
            let transfer = transfer.with_context(|| format!("{} to {}", from.name(), to.name))?;
            ensure!(transfer.cur_addr.is_empty(), "it went directly");
        }
    }
    Ok(())
}
