//! A node that logs out is offline to others; logged in again with a new key it is the same node with the same
//! addresses.

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup, Up};
use serde_json::{Value, json};

scenario!(come_back);

async fn come_back(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let alpha = Node::join(&server, "alpha", Kind::default(), &key).await?;
    let clients = [("beta", Client::Tsnet), ("gamma", Client::TsnetOld), ("delta", Client::Ours)];
    for (name, client) in clients {
        let node = Node::join(&server, name, Kind { client, ..Kind::default() }, &key).await?;
        let before = node.running().await?;
        let id = server.node(name).await?.id;
        alpha.reaches(name).await?;

        node.call::<Value>("logout", json!({})).await?;
        node.until("is logged out", |status| {
            ensure!(status.state == "NeedsLogin", "state {}", status.state);
            Ok(())
        })
        .await?;
        alpha
            .until(&format!("{name} is expired"), |status| {
                ensure!(status.peer(name)?.expired, "it is not");
                Ok(())
            })
            .await?;

        let fresh = server.preauth_key("alice", &[]).await?;
        node.up(Up { auth_key: Some(&fresh), ..Up::default() }).await?;
        let after = node.running().await?;
        ensure!(after.key != before.key, "it kept its node key over a logout");
        ensure!(after.addresses == before.addresses, "it got {:?}", after.addresses);
        ensure!(server.node(name).await?.id == id, "it became another node");
        let seen = alpha.reaches(name).await?;
        ensure!(seen.key == after.key, "others know it by its old key");
    }
    Ok(())
}
