//! Bundled nodes go on when the server is started anew; one that is started anew itself is the same node, and reached again.

use anyhow::{Context as _, Result, ensure};
use mesh_integration::{Kind, Lab, Node as Stock, Server, Setup};

use crate::ours::{exchange, join, join_in, serve_echo};

const BYTES: usize = 100_000;

scenario!(restarts);

async fn restarts(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let spent = server.preauth_key("alice", &[]).await?;
    let relayed = Kind { relay_only: true, ..Kind::default() };
    let stock = Stock::join(&server, "stock", relayed, &key).await?;
    stock.echo(7).await?;
    let directory = tempfile::tempdir()?;
    let caller = join(&server, "caller", &key).await?;
    let node = join_in(&server, "node", &spent, directory.path()).await?;
    serve_echo(&node)?;
    exchange(&caller, "stock:7", BYTES).await.context("through the relay")?;
    exchange(&caller, "node:7", BYTES).await.context("at first")?;

    server.stop().await?;
    exchange(&caller, "node:7", BYTES).await.context("without the server")?;
    server.launch().await?;

    let addresses = node.ips();
    node.close().await;
    let node = join_in(&server, "node", &spent, directory.path()).await?;
    ensure!(node.ips() == addresses, "it is another node: {:?}", node.ips());
    serve_echo(&node)?;
    exchange(&caller, "node:7", BYTES).await.context("after the restarts")?;
    let peer = stock.reaches("node").await?;
    stock.transfer_to(&peer, 7, BYTES).await.context("from the stock client")?;
    Ok(())
}
