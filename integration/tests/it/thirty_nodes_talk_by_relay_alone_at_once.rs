//! Thirty nodes, stock and bundled, each a process of its own, join at the same moment, and each has the next send it back what it
//! sends, all at once, through `meshcontrol derp` alone.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use mesh_integration::{Client, Kind, Lab, Maker, Node, Relay, Server, Up};

scenario!(talk, alone);

const NODES: usize = 30;
const BYTES: usize = 300_000;
/// How long it may take on two cores until each can reach the next.
const SEEN_MAX: Duration = Duration::from_mins(1);

async fn talk(lab: &Lab) -> Result<()> {
    let relay = Relay::new(lab, "relay", Maker::Ours, 900)?;
    relay.launch().await?;
    let (server, key) = Server::start_beside(lab, &[&[&relay]]).await?;
    let spawn = |number: usize| {
        let client = if number.is_multiple_of(3) { Client::Ours } else { Client::Tsnet };
        let kind = Kind::by_relay(client);
        Node::spawn(&server, &format!("node-{number}"), kind)
    };
    let nodes: Vec<Node<'_>> = (0..NODES).map(spawn).collect::<Result<_>>()?;
    try_join_all(nodes.iter().map(async |node| {
        node.up(Up { auth_key: Some(&key), ..Up::default() }).await?;
        node.running().await?;
        node.echo(7).await
    }))
    .await?;
    let next = nodes.iter().cycle().skip(1);
    let pairs: Vec<_> = nodes.iter().zip(next).collect();
    let peers = try_join_all(pairs.iter().map(async |(node, next)| {
        let peer = |of: &Node<'_>| of.name().to_owned();
        let (ours, theirs) = (peer(node), peer(next));
        let reached = |status: &mesh_integration::Status, name: &str| {
            let peer = status.peer(name)?;
            peer.check_reachable()?;
            Ok(peer.clone())
        };
        next.until_within(SEEN_MAX, "sees the one before", |status| reached(status, &ours)).await?;
        node.until_within(SEEN_MAX, "sees the next", |status| reached(status, &theirs)).await
    }))
    .await?;
    try_join_all(pairs.iter().zip(&peers).map(async |((node, next), peer)| {
        let transfer = node.transfer_to(peer, 7, BYTES).await;
        let transfer = transfer.with_context(|| format!("{} to {}", node.name(), next.name()))?;
        ensure!(transfer.cur_addr.is_empty(), "it went directly to {}", transfer.cur_addr);
        Ok(())
    }))
    .await?;
    Ok(())
}
