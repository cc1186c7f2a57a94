//! `meshcontrol derp` is stopped in order and started again: connections that go by it alone go on, of stock clients and of
//! bundled nodes.

use std::time::Duration;

use anyhow::{Context as _, Result};
use mesh_integration::{Client, Kind, Lab, Maker, Node, Relay, Server, eventually};

scenario!(restart, alone);

/// How soon after the relay is back all is as before. Clients wait for up to 5 s until they come back, and TCP inside for as long
/// again.
const BACK_MAX: Duration = Duration::from_secs(15);

async fn restart(lab: &Lab) -> Result<()> {
    let relay = Relay::new(lab, "relay", Maker::Ours, 900)?;
    relay.launch().await?;
    let (server, key) = Server::start_beside(lab, &[&[&relay]]).await?;
    let stock = Node::join(&server, "stock", Kind::by_relay(Client::Tsnet), &key).await?;
    let ours = Node::join(&server, "ours", Kind::by_relay(Client::Ours), &key).await?;
    let other = Node::join(&server, "other", Kind::by_relay(Client::Tsnet), &key).await?;
    other.echo(7).await?;
    ours.echo(7).await?;
    let to_other = stock.reaches("other").await?;
    let to_ours = stock.reaches("ours").await?;
    ours.reaches("other").await?;
    other.reaches("stock").await?;
    let running = [
        stock.open(to_other.port(7)?).await?,
        stock.open(to_ours.port(7)?).await?,
        ours.open(to_other.port(7)?).await?,
    ];
    for connection in &running {
        connection.exchange(100_000).await.context("at first")?;
    }
    relay.stop().await?;
    relay.launch().await?;
    for connection in &running {
        eventually(BACK_MAX, "a connection goes on", async || connection.exchange(100_000).await)
            .await?;
    }
    relay.stop().await
}
