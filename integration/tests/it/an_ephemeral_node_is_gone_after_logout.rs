//! A node that is ephemeral by its key, and one that asked to be, are deleted when they log out.

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup, Up, eventually};
use serde_json::{Value, json};
use std::time::Duration;

scenario!(log_out);

async fn log_out(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let ephemeral_key = server.preauth_key("alice", &["--ephemeral", "--reusable"]).await?;
    let alpha = Node::join(&server, "alpha", Kind::default(), &key).await?;
    for (name, client) in [("stock", Client::Tsnet), ("ours", Client::Ours)] {
        let kind = Kind { client, ..Kind::default() };
        let by_key = Node::join(&server, &format!("{name}-by-key"), kind, &ephemeral_key).await?;
        let by_wish = Node::spawn(&server, &format!("{name}-by-wish"), kind)?;
        by_wish.up(Up { auth_key: Some(&key), ephemeral: true, ..Up::default() }).await?;
        by_wish.running().await?;

        for node in [by_key, by_wish] {
            alpha.reaches(node.name()).await?;
            node.call::<Value>("logout", json!({})).await?;
            alpha.loses(node.name()).await?;
        }
    }
    eventually(Duration::from_secs(5), "the server knows only alpha", async || {
        let names: Vec<_> = server.nodes().await?.into_iter().map(|node| node.given_name).collect();
        ensure!(names == ["alpha"], "it knows {names:?}");
        Ok(())
    })
    .await
}
