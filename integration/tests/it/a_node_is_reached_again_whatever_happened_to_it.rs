//! A node is started again, has its key replaced, logs out and comes back: bundled nodes, stock clients and the `tailscale` crate
//! talk with it again, both ways, whichever of them it is. While it is logged out, connections to it stand still.

use anyhow::{Context as _, Result, ensure};
use mesh_integration::{Client, Connection, Kind, Lab, Node, Server, Setup, Up};
use serde_json::{Value, json};

const BYTES: usize = 50_000;

/// As much as the `tailscale` crate is given: its TCP sends all it has at once, and waits for up to half a minute where some
/// of it is dropped.
const STRICT_BYTES: usize = 20_000;

const CLIENTS: [(&str, Client); 3] =
    [("ours", Client::Ours), ("stock", Client::Tsnet), ("strict", Client::TailscaleRs)];

scenario!(come_back);

async fn come_back(lab: &Lab) -> Result<()> {
    // The `tailscale` crate cannot pin a certificate, as our own DERP map asks.
    let server = Server::start(lab, Setup { unchecked_relay: true, ..Setup::default() }).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let up = Up { auth_key: Some(&key), ..Up::default() };
    let mut others = Vec::new();
    for (name, client) in CLIENTS {
        let kind = Kind { client, ..Kind::default() };
        let node = Node::join(&server, &format!("{name}-other"), kind, &key).await?;
        echo(&node).await?;
        others.push(node);
    }
    for (name, client) in CLIENTS {
        let kind = Kind { client, ..Kind::default() };
        let node = Node::join(&server, name, kind, &key).await?;
        echo(&node).await?;
        if client == Client::TailscaleRs {
            // What two of these do is theirs alone.
            others.retain(|other| !is_strict(other));
        }
        talk(&node, &others).await.context("at first")?;

        let before = node.running().await?;
        let node = node.restart().await?;
        node.up(up.clone()).await?;
        let after = node.running().await?;
        ensure!(after.key == before.key, "it has another node key");
        echo(&node).await?;
        talk(&node, &others).await.context("after a restart")?;

        let node = with_another_key(node, &up).await?;
        until_another_key(&node, &before.key).await?;
        others = restart_strict(others, &up).await?;
        talk(&node, &others).await.context("with another key")?;

        let before = node.running().await?;
        let mut open = Vec::new();
        for other in &others {
            open.push(other.open(before.port(7)?).await?);
        }
        let node = log_out_and_in(&server, node, open, &up).await?;
        until_another_key(&node, &before.key).await?;
        others = restart_strict(others, &up).await?;
        talk(&node, &others).await.context("after a login")?;
    }
    Ok(())
}

fn is_strict(node: &Node<'_>) -> bool {
    node.client() == Client::TailscaleRs
}

/// Has it replace its key. The `tailscale` crate can only be started with another.
async fn with_another_key<'a>(node: Node<'a>, up: &Up<'_>) -> Result<Node<'a>> {
    let is_strict = is_strict(&node);
    let node = if is_strict { node.restart().await? } else { node };
    node.up(Up { force_reauth: true, ..up.clone() }).await?;
    if is_strict {
        node.running().await?;
        echo(&node).await?;
    }
    Ok(node)
}

/// Starts the `tailscale` crate again, for another node has replaced its key. It signs what it says to that one in a handshake
/// for the first key that it knew (`mac1`), and so is never answered.
async fn restart_strict<'a>(nodes: Vec<Node<'a>>, up: &Up<'_>) -> Result<Vec<Node<'a>>> {
    let mut restarted = Vec::new();
    for mut node in nodes {
        if is_strict(&node) {
            node = node.restart().await?;
            node.up(up.clone()).await?;
            node.running().await?;
            echo(&node).await?;
        }
        restarted.push(node);
    }
    Ok(restarted)
}

/// Has it log out, waits until the connections to it stand still, and has it log in again. The `tailscale` crate cannot log
/// out: an admin ends its login.
async fn log_out_and_in<'a>(
    server: &Server<'_>,
    node: Node<'a>,
    open: Vec<Connection<'_>>,
    up: &Up<'_>,
) -> Result<Node<'a>> {
    if is_strict(&node) {
        let id = server.node(node.name()).await?.id;
        server.cli(&["nodes", "expire", "--identifier", &id]).await?;
    } else {
        node.call::<Value>("logout", json!({})).await?;
    }
    for connection in open {
        connection.stops().await.context("after a logout")?;
    }
    if is_strict(&node) {
        return with_another_key(node, up).await;
    }
    node.up(up.clone()).await?;
    if node.client() == Client::Ours {
        // Made anew, it does not listen yet.
        node.running().await?;
        echo(&node).await?;
    }
    Ok(node)
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
        let theirs = other.running().await?;
        for (one, peer) in [(node, &theirs), (other, &own)] {
            one.knows(peer).await?;
            if !is_strict(one) {
                one.reaches(peer.label()).await?;
            }
        }
        let mut bytes = BYTES;
        if is_strict(node) || is_strict(other) {
            node.has_tunnel_to(&theirs, 7).await?;
            bytes = STRICT_BYTES;
        }
        node.transfer_to(&theirs, 7, bytes).await.with_context(|| format!("to {}", theirs.name))?;
        other.transfer_to(&own, 7, bytes).await.with_context(|| format!("from {}", theirs.name))?;
    }
    Ok(())
}

async fn echo(node: &Node<'_>) -> Result<()> {
    node.echo(7).await?;
    node.echo_udp(7).await
}
