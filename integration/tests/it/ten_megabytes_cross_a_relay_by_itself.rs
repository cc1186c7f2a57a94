//! Stock clients and bundled nodes that may send nothing directly exchange 10 MB through `meshcontrol derp`, each direction by
//! itself, by whatever pair of them. They pin the relay's certificate.

use anyhow::{Context as _, Result, ensure};
use mesh_integration::{Client, Kind, Lab, Maker, Node, Relay, Server, Transfer};

scenario!(cross);

const BYTES: usize = 10_000_000;

async fn cross(lab: &Lab) -> Result<()> {
    let relay = Relay::new(lab, "relay", Maker::Ours, 900)?;
    relay.launch().await?;
    let (server, key) = Server::start_beside(lab, &[&[&relay]]).await?;
    let mut nodes = Vec::new();
    for (name, client) in [
        ("stock", Client::Tsnet),
        ("other", Client::Tsnet),
        ("ours", Client::Ours),
        ("own", Client::Ours),
    ] {
        let node = Node::join(&server, name, Kind::by_relay(client), &key).await?;
        node.echo(7).await?;
        nodes.push(node);
    }
    let [stock, other, ours, own] = &nodes[..] else { unreachable!("four nodes") };
    other.sink(8).await?;
    other.source(9).await?;
    let peer = stock.reaches("other").await?;
    other.reaches("stock").await?;
    check(&stock.send_to(&peer, 8, BYTES).await.context("there")?)?;
    check(&stock.receive_from(&peer, 9, BYTES).await.context("back")?)?;
    for (from, to) in [(ours, stock), (stock, ours), (ours, own)] {
        let peer = from.reaches(to.name()).await?;
        to.reaches(from.name()).await?;
        let transfer = from.transfer_to(&peer, 7, BYTES).await;
        check(&transfer.with_context(|| format!("{} to {}", from.name(), to.name()))?)?;
    }
    relay.stop().await
}

fn check(transfer: &Transfer) -> Result<()> {
    ensure!(transfer.cur_addr.is_empty(), "it went directly to {}", transfer.cur_addr);
    Ok(())
}
