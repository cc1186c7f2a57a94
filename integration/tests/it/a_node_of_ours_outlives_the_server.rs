//! Bundled nodes go on without the server, and are back at its relay when it is started again.

use anyhow::{Context as _, Result};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup};

const BYTES: usize = 100_000;

scenario!(restart);

async fn restart(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let ours = Kind { client: Client::Ours, ..Kind::default() };
    let relayed = Kind::by_relay(Client::Tsnet);
    let stock = Node::join(&server, "stock", relayed, &key).await?;
    let caller = Node::join(&server, "caller", ours, &key).await?;
    let node = Node::join(&server, "node", ours, &key).await?;
    stock.echo(7).await?;
    node.echo(7).await?;
    let to_node = caller.reaches("node").await?;
    let to_stock = caller.reaches("stock").await?;
    caller.transfer_to(&to_node, 7, BYTES).await.context("at first")?;
    caller.transfer_to(&to_stock, 7, BYTES).await.context("through the relay at first")?;

    server.stop().await?;
    caller.transfer_to(&to_node, 7, BYTES).await.context("without the server")?;
    server.launch().await?;
    caller.transfer_to(&to_stock, 7, BYTES).await.context("through the relay again")?;
    let to_node = stock.reaches("node").await?;
    stock.transfer_to(&to_node, 7, BYTES).await.context("to us through the relay")?;
    Ok(())
}
