//! A node of the `tailscale` crate is deleted: bundled nodes and stock clients forget it, and connections to it stand still.
//! Started again with another preauth key it joins as another node, and they talk, both ways.

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup, Up};

const BYTES: usize = 20_000;

scenario!(delete);

async fn delete(lab: &Lab) -> Result<()> {
    // It cannot pin a certificate, as our own DERP map asks.
    let server = Server::start(lab, Setup { unchecked_relay: true, ..Setup::default() }).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let mut others = Vec::new();
    for (name, client) in [("ours", Client::Ours), ("stock", Client::Tsnet)] {
        let node = Node::join(&server, name, Kind { client, ..Kind::default() }, &key).await?;
        node.echo(7).await?;
        others.push(node);
    }
    // It asks again with its key as soon as its map stream ends, so that key must be spent.
    let spent = server.preauth_key("alice", &[]).await?;
    let strict = Kind { client: Client::TailscaleRs, ..Kind::default() };
    let strict = Node::join(&server, "strict", strict, &spent).await?;
    strict.echo(7).await?;
    talk(&strict, &others).await?;
    let (before, id) = (strict.running().await?, server.node("strict").await?.id);
    let mut open = Vec::new();
    for other in &others {
        open.push(other.open(before.port(7)?).await?);
    }

    server.cli(&["nodes", "delete", "--identifier", &id, "--force"]).await?;
    for other in &others {
        other.loses("strict").await?;
    }
    for connection in open {
        connection.stops().await?;
    }
    let strict = strict.restart().await?;
    strict.up(Up { auth_key: Some(&key), ..Up::default() }).await?;
    strict.running().await?;
    strict.echo(7).await?;
    ensure!(server.node("strict").await?.id != id, "the deleted node came back");
    talk(&strict, &others).await
}

async fn talk(strict: &Node<'_>, others: &[Node<'_>]) -> Result<()> {
    let own = strict.running().await?;
    for other in others {
        let peer = other.running().await?;
        strict.knows(&peer).await?;
        other.knows(&own).await?;
        other.reaches("strict").await?;
        strict.transfer_to(&peer, 7, BYTES).await?;
        other.transfer_to(&own, 7, BYTES).await?;
    }
    Ok(())
}
