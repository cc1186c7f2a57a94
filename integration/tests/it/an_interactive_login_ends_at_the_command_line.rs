//! A client without a key shows a URL; the admin registers one login, and the client runs; the admin rejects another,
//! and its user is told.

use anyhow::{Context as _, Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup, Up};

scenario!(log_in);

async fn log_in(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    for (name, client) in [("alpha", Client::Tsnet), ("beta", Client::TsnetOld)] {
        let node = Node::spawn(&server, name, Kind { client, ..Kind::default() })?;
        let auth_id = begin(&server, &node).await?;
        server.cli(&["auth", "register", "--auth-id", &auth_id, "--user", "alice"]).await?;
        let own = node.running().await?;
        ensure!(own.user.as_deref() == Some("alice"), "{name} is {:?}'s", own.user);
    }
    let node = Node::spawn(&server, "gamma", Kind::default())?;
    let auth_id = begin(&server, &node).await?;
    server.cli(&["auth", "reject", "--auth-id", &auth_id]).await?;
    node.until("is told of the rejection", |status| {
        let error = status.error.as_deref().context("the client shows no error")?;
        ensure!(error.contains("rejected"), "the client shows {error:?}");
        Ok(())
    })
    .await
}

/// Begins a login and returns what its URL ends with.
async fn begin(server: &Server<'_>, node: &Node<'_>) -> Result<String> {
    node.up(Up::default()).await?;
    let url = node.until("shows a URL", |status| status.auth_url.clone().context("no URL")).await?;
    let auth_id = url
        .strip_prefix(&format!("{}/register/", server.url()))
        .with_context(|| format!("{url} is no register page of {}", server.url()))?;
    Ok(auth_id.to_owned())
}
