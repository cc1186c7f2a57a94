//! In a tailnet of thousands a node joins and another leaves, twenty times; a stock client takes every step in place
//! and never rebuilds its netmap.

use anyhow::{Result, ensure};
use mesh_integration::{Kind, Lab, Node, Server, Setup, Visitor};

scenario!(twenty_steps, alone);

/// Nodes that are there already: enough that a whole map would be seen in every figure.
const NODES: u32 = 3000;

const STEPS: i64 = 20;

async fn twenty_steps(lab: &Lab) -> Result<()> {
    let setup = Setup { synthetic_nodes: NODES, ..Setup::default() };
    let server = Server::start(lab, setup).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let dialer = server.dialer()?;
    let viewer = Node::join(&server, "viewer", Kind::default(), &key).await?;
    let peers = viewer.status().await?.peers.len();
    ensure!(peers == NODES as usize, "it sees {peers} peers");

    let before = viewer.settled().await?;
    let mut last: Option<(Visitor, String)> = None;
    for step in 0..STEPS {
        let name = format!("visitor-{step}");
        let visitor = Visitor::join(&dialer, &key, &name).await?;
        visitor.announce().await?;
        viewer.until("sees who joined", |status| status.peer(&name).map(drop)).await?;
        if let Some((last, name)) = last.replace((visitor, name)) {
            last.leave().await?;
            viewer.loses(&name).await?;
        }
    }
    let after = viewer.settled().await?;
    ensure!(after.in_place >= before.in_place + STEPS, "{STEPS} steps: {before:?}, {after:?}");
    ensure!(after.rebuilt == before.rebuilt, "a step was no delta: {before:?}, {after:?}");
    Ok(())
}
