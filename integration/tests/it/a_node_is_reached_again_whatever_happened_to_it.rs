//! A node is started again, has its key replaced, logs out and comes back: bundled nodes and stock clients talk with it again,
//! both ways, be it one or the other. While it is logged out, connections to it stand still.

use anyhow::{Context as _, Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup, Up};
use serde_json::{Value, json};

const BYTES: usize = 50_000;

const CLIENTS: [(&str, Client); 2] = [("ours", Client::Ours), ("stock", Client::Tsnet)];

scenario!(come_back);

async fn come_back(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let mut others = Vec::new();
    for (name, client) in CLIENTS {
        let kind = Kind { client, ..Kind::default() };
        let node = Node::join(&server, &format!("{name}-other"), kind, &key).await?;
        node.echo(7).await?;
        others.push(node);
    }
    for (name, client) in CLIENTS {
        let kind = Kind { client, ..Kind::default() };
        let node = Node::join(&server, name, kind, &key).await?;
        node.echo(7).await?;
        talk(&node, &others).await.context("at first")?;

        let before = node.running().await?;
        let node = node.restart().await?;
        let up = Up { auth_key: Some(&key), ..Up::default() };
        node.up(up.clone()).await?;
        let after = node.running().await?;
        ensure!(after.key == before.key, "it has another node key");
        node.echo(7).await?;
        talk(&node, &others).await.context("after a restart")?;

        node.up(Up { force_reauth: true, ..up.clone() }).await?;
        until_another_key(&node, &before.key).await?;
        talk(&node, &others).await.context("with another key")?;

        let before = node.running().await?;
        let mut open = Vec::new();
        for other in &others {
            open.push(other.open(before.port(7)?).await?);
        }
        node.call::<Value>("logout", json!({})).await?;
        for connection in open {
            connection.stops().await.context("after a logout")?;
        }
        node.up(up).await?;
        until_another_key(&node, &before.key).await?;
        if client == Client::Ours {
            // Made anew, it does not listen yet.
            node.echo(7).await?;
        }
        talk(&node, &others).await.context("after a login")?;
    }
    Ok(())
}

async fn until_another_key(node: &Node<'_>, before: &str) -> Result<()> {
    node.until("runs with another node key", |status| {
        ensure!(status.state == "Running", "state {}, {:?}", status.state, status.error);
        ensure!(status.own()?.key != before, "it has its old node key");
        Ok(())
    })
    .await
}

/// Fails unless it and all others exchange bytes, both ways. It begins: stock clients go on to send for 6.5 s to where they last
/// reached a node that was away for a moment only.
async fn talk(node: &Node<'_>, others: &[Node<'_>]) -> Result<()> {
    let own = node.running().await?;
    for other in others {
        let peer = other
            .until("knows its key", |status| {
                let peer = status.peer(own.label())?;
                ensure!(peer.key == own.key, "it knows an old one");
                peer.check_reachable()?;
                Ok(peer.clone())
            })
            .await?;
        let to = node.reaches(other.name()).await?;
        node.transfer_to(&to, 7, BYTES).await.with_context(|| format!("to {}", other.name()))?;
        other
            .transfer_to(&peer, 7, BYTES)
            .await
            .with_context(|| format!("from {}", other.name()))?;
    }
    Ok(())
}
