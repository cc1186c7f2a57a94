//! The client of a deleted node says within seconds that it needs a login, and can log in as a new node.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup, Up};

scenario!(delete);

/// What a client logs when it asks for its netmap.
const ASKED: &str = "PollNetMap: stream=true";
/// How long a client that was told is watched, and how often it may ask meanwhile.
const WATCHED: Duration = Duration::from_secs(2);
const ASKED_MAX: usize = 5;

/// How soon the client tells its user.
const TOLD_MAX: Duration = Duration::from_secs(3);

async fn delete(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let alpha = Node::join(&server, "alpha", Kind::default(), &key).await?;
    let clients = [("beta", Client::Tsnet), ("gamma", Client::TsnetOld), ("delta", Client::Ours)];
    for (name, client) in clients {
        let node = Node::join(&server, name, Kind { client, ..Kind::default() }, &key).await?;
        alpha.reaches(name).await?;
        let id = server.node(name).await?.id;
        server.cli(&["nodes", "delete", "--identifier", &id, "--force"]).await?;
        node.until_within(TOLD_MAX, "needs a login", |status| {
            ensure!(status.state == "NeedsLogin", "state {}", status.state);
            Ok(())
        })
        .await?;
        alpha.loses(name).await?;
        check_patient(&node).await?;

        node.up(Up { auth_key: Some(&key), ..Up::default() }).await?;
        node.running().await?;
        ensure!(server.node(name).await?.id != id, "the deleted node came back");
        alpha.reaches(name).await?;
    }
    Ok(())
}

/// Fails if the client asks again and again. It does when its stream ends right after an answer.
async fn check_patient(node: &Node<'_>) -> Result<()> {
    let before = node.log()?.matches(ASKED).count();
    tokio::time::sleep(WATCHED).await;
    let asked = node.log()?.matches(ASKED).count() - before;
    ensure!(asked <= ASKED_MAX, "{} asked {asked} times in {WATCHED:?}", node.name());
    Ok(())
}
