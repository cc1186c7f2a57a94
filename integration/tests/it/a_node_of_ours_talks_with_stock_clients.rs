//! Bundled nodes join beside stock clients: each finds the other by name, opens connections both ways, and says who calls.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_integration::{Kind, Lab, Node as Stock, Server, Setup, eventually};

use crate::ours::{exchange, join, serve_echo};

scenario!(talk);

const BYTES: usize = 1_000_000;

async fn talk(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let stock = Stock::join(&server, "stock", Kind::default(), &key).await?;
    stock.echo(7).await?;
    let (one, other) = (join(&server, "one", &key).await?, join(&server, "other", &key).await?);
    serve_echo(&other)?;

    exchange(&one, "other:7", BYTES).await.context("between nodes of ours")?;
    exchange(&one, "stock:7", BYTES).await.context("from ours to the stock client")?;
    let peer = stock.reaches("other").await?;
    stock.transfer_to(&peer, 7, BYTES).await.context("from the stock client to ours")?;

    let stock_address = stock.running().await?.addresses[0];
    let who = one.who_is(stock_address).await?.context("nobody has the stock client's address")?;
    let name = who.node.name.trim_end_matches('.');
    ensure!(name == Stock::full_name("stock"), "it is {name}");
    let owner = who.user_profile.map(|profile| profile.login_name);
    ensure!(owner.as_deref() == Some("alice"), "it is {owner:?}'s");

    eventually(Duration::from_secs(5), "all talk directly", async || {
        for peer in one.status().await?.peers {
            ensure!(peer.direct.is_some(), "{} is reached through {:?}", peer.name, peer.relay);
        }
        Ok(())
    })
    .await?;
    stock.reaches_directly(&peer).await
}
