//! The DERP map of running clients loses their home region and gets another: all move there, and connections that go by relay
//! alone go on, also once the old relay is gone.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_integration::{Client, Kind, Lab, Maker, Node, Relay, Server, eventually, write_derp_map};

scenario!(follow);

/// How soon all are at home in the other region: the server looks at its map every few seconds. A stock client that has heard
/// from its old home a moment ago keeps to it until it measures again, 20 to 26 s later.
const MOVED_MAX: Duration = Duration::from_secs(45);

async fn follow(lab: &Lab) -> Result<()> {
    let [first, second] =
        [("first", 900), ("second", 901)].map(|(name, id)| Relay::new(lab, name, Maker::Ours, id));
    let (first, second) = (first?, second?);
    first.launch().await?;
    second.launch().await?;
    let (server, key) = Server::start_beside(lab, &[&[&first]]).await?;
    let stock = Node::join(&server, "stock", Kind::by_relay(Client::Tsnet), &key).await?;
    let other = Node::join(&server, "other", Kind::by_relay(Client::Tsnet), &key).await?;
    let ours = Node::join(&server, "ours", Kind::by_relay(Client::Ours), &key).await?;
    other.echo(7).await?;
    let to_other = stock.reaches("other").await?;
    ours.reaches("other").await?;
    let running = [stock.open(to_other.port(7)?).await?, ours.open(to_other.port(7)?).await?];
    for connection in &running {
        connection.exchange(10_000).await.context("at first")?;
    }

    write_derp_map(lab, &[&[&second]])?;
    for node in [&stock, &ours] {
        node.until_within(MOVED_MAX, "sees the others in the second region", |status| {
            for peer in &status.peers {
                ensure!(peer.relay.ends_with("901"), "{} is in {}", peer.name, peer.relay);
            }
            Ok(())
        })
        .await?;
    }
    first.stop().await?;
    for connection in &running {
        eventually(MOVED_MAX, "a connection goes on", async || connection.exchange(10_000).await)
            .await?;
    }
    Ok(())
}
