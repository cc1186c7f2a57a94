//! The policy in the database is in force from the first moment of the next start: who was invisible stays so, a peer that
//! comes back sees no more than before, and so does a node that joins after.

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Peer, Server, Setup};
use serde_json::Value;

scenario!(restart);

const POLICY: &str = r#"{
    "tagOwners": {"tag:web": []},
    "acls": [{"action": "accept", "src": ["alice@"], "dst": ["tag:web:80"]}],
}"#;

async fn restart(lab: &Lab) -> Result<()> {
    // A refused dial of plain http would keep clients away for 10 s.
    let server = Server::start(lab, Setup { tls: true, ..Setup::default() }).await?;
    server.create_user("alice").await?;
    server.set_policy(POLICY).await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let web_key = server.tagged_key("tag:web").await?;
    let old = Kind { client: Client::TsnetOld, ..Kind::default() };
    let alpha = Node::join(&server, "alpha", Kind::default(), &key).await?;
    let beta = Node::join(&server, "beta", old, &key).await?;
    let web = Node::join(&server, "web", Kind::default(), &web_key).await?;
    check_sees(&alpha, &["web"]).await?;
    check_sees(&beta, &["web"]).await?;
    check_sees(&web, &["alpha", "beta"]).await?;

    server.stop().await?;
    server.launch().await?;
    let gamma = Node::join(&server, "gamma", Kind::default(), &key).await?;
    // It hears of gamma only over a stream of after the restart.
    check_sees(&web, &["alpha", "beta", "gamma"]).await?;
    for user in [&alpha, &beta, &gamma] {
        check_sees(user, &["web"]).await?;
    }
    let policy: Value = server.cli_json(&["policy", "get"]).await?;
    ensure!(policy["policy"] == POLICY, "it is {policy}");
    server.stop().await
}

async fn check_sees(node: &Node<'_>, others: &[&str]) -> Result<()> {
    node.until(&format!("sees {others:?} and nobody else"), |status| {
        let mut seen: Vec<&str> = status.peers.iter().map(Peer::label).collect();
        seen.sort_unstable();
        ensure!(seen == others, "it sees {seen:?}");
        ensure!(status.peers.iter().all(|peer| peer.online), "somebody is offline");
        Ok(())
    })
    .await
}
