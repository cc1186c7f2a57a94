//! `tailscale up --force-reauth --authkey` registers twice with its key, first with the old node key, then with a new
//! one, and both can be under way together: a single-use key must carry both. Repeated, for the overlap is a race.

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup, Up};

scenario!(reauthenticate);

/// headscale refused one in 30.
const ROUNDS: usize = 15;

async fn reauthenticate(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    for (name, client) in [("alpha", Client::Tsnet), ("beta", Client::TsnetOld)] {
        let key = server.preauth_key("alice", &[]).await?;
        let node = Node::join(&server, name, Kind { client, ..Kind::default() }, &key).await?;
        let first = node.running().await?;
        let id = server.node(name).await?.id;
        let mut last_key = first.key;
        for round in 1..=ROUNDS {
            let key = server.preauth_key("alice", &[]).await?;
            node.up(Up { auth_key: Some(&key), force_reauth: true, ..Up::default() }).await?;
            last_key = node
                .until(&format!("runs with a new node key, round {round}"), |status| {
                    ensure!(status.error.is_none(), "the client shows {:?}", status.error);
                    let own = status.own()?;
                    ensure!(status.state == "Running", "state {}", status.state);
                    ensure!(own.key != last_key, "it has its old node key");
                    ensure!(own.addresses == first.addresses, "it got {:?}", own.addresses);
                    Ok(own.key.clone())
                })
                .await?;
        }
        let record = server.node(name).await?;
        ensure!(record.id == id, "it became another node");
        ensure!(record.node_key == last_key, "the server knows another node key");
    }
    Ok(())
}
