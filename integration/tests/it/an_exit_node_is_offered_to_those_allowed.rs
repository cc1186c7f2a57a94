//! A node offers to be an exit node and is approved: the clients of those whom the policy allows the Internet may choose it,
//! others see it as any node. Another policy turns that round.

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup};

scenario!(offer);

const EXIT: [&str; 2] = ["0.0.0.0/0", "::/0"];

async fn offer(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    server.create_user("bob").await?;
    server.set_policy(&policy("alice@")).await?;
    let key = server.tagged_key("tag:exit").await?;
    let exit = Node::join(&server, "exit", Kind::default(), &key).await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let old = Kind { client: Client::TsnetOld, ..Kind::default() };
    let alice = Node::join(&server, "alice", Kind::default(), &key).await?;
    let alice_old = Node::join(&server, "alice-old", old, &key).await?;
    let key = server.preauth_key("bob", &[]).await?;
    let bob = Node::join(&server, "bob", Kind::default(), &key).await?;
    for user in [&alice, &alice_old, &bob] {
        user.reaches("exit").await?;
    }

    exit.advertise_routes(&EXIT).await?;
    server.approve_routes("exit", &EXIT).await?;
    check_offered(&alice, true).await?;
    check_offered(&alice_old, true).await?;
    check_offered(&bob, false).await?;

    server.set_policy(&policy("bob@")).await?;
    check_offered(&bob, true).await?;
    check_offered(&alice, false).await?;
    check_offered(&alice_old, false).await?;

    server.approve_routes("exit", &[]).await?;
    check_offered(&bob, false).await
}

fn policy(user: &str) -> String {
    format!(
        r#"{{
            "tagOwners": {{"tag:exit": []}},
            "grants": [
                {{"src": ["alice@", "bob@"], "dst": ["tag:exit"], "ip": ["80"]}},
                {{"src": ["{user}"], "dst": ["autogroup:internet"], "ip": ["*"]}},
            ],
        }}"#
    )
}

async fn check_offered(user: &Node<'_>, offered: bool) -> Result<()> {
    user.until(&format!("may choose the exit node: {offered}"), |status| {
        let exit = status.peer("exit")?;
        ensure!(exit.exit_node_option == offered, "{exit:?}");
        Ok(())
    })
    .await
}
