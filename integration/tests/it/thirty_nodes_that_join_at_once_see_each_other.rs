//! Thirty clients, each a process of its own, join at the same moment; soon each sees all others online.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_integration::{Kind, Lab, Node, Server, Setup, Up};

scenario!(rush, alone);

const NODES: usize = 30;
/// How long all of it may take on two cores.
const SEEN_MAX: Duration = Duration::from_mins(1);

async fn rush(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let names: Vec<String> = (0..NODES).map(|number| format!("node-{number}")).collect();
    let nodes: Vec<Node<'_>> = names
        .iter()
        .map(|name| Node::spawn(&server, name, Kind::default()))
        .collect::<Result<_>>()?;
    for node in &nodes {
        node.up(Up { auth_key: Some(&key), ..Up::default() }).await?;
    }
    let mut addresses = BTreeSet::new();
    for node in &nodes {
        let own = node
            .until_within(SEEN_MAX, "sees all others", |status| {
                for name in names.iter().filter(|name| *name != node.name()) {
                    status.peer(name)?.check_reachable()?;
                }
                Ok(status.own()?.clone())
            })
            .await?;
        addresses.extend(own.addresses);
    }
    ensure!(addresses.len() == 2 * NODES, "{} addresses for {NODES} nodes", addresses.len());
    Ok(())
}
