//! bob is made a member of a group and removed again: his node and the one that the group may reach hear of it, and
//! not a byte goes to the node of a member who stays or to that of somebody else.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup, eventually};
use tokio::time::sleep;

scenario!(edit);

/// How long nothing is said before the edit, and how long silence is listened to after it was heard. Long beside the
/// time in which a change reaches all streams, short beside the 50 s after which a keep-alive is sent.
const SILENCE: Duration = Duration::from_millis(1500);

async fn edit(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.set_policy(&policy(r#""alice@""#)).await?;
    let web_key = server.tagged_key("tag:web").await?;
    let web = Node::join(&server, "web", Kind::default(), &web_key).await?;
    let mut nodes = Vec::new();
    for (user, client) in
        [("alice", Client::Tsnet), ("bob", Client::Tsnet), ("carol", Client::TsnetOld)]
    {
        server.create_user(user).await?;
        let key = server.preauth_key(user, &[]).await?;
        nodes.push(Node::join(&server, user, Kind { client, ..Kind::default() }, &key).await?);
    }
    let [alice, bob, carol] = &nodes[..] else { unreachable!() };
    for member in [alice, carol] {
        member.reaches("web").await?;
        web.reaches(member.name()).await?;
    }
    bob.loses("web").await?;

    let (concerned, others) = ([bob, &web], [alice, carol]);
    let before = (quiet(&concerned).await?, quiet(&others).await?);
    server.set_policy(&policy(r#""alice@", "bob@""#)).await?;
    bob.reaches("web").await?;
    web.reaches("bob").await?;
    check_silent(&others, &before.1, "bob came").await?;
    let after = messages(&concerned).await?;
    let is_heard = after.iter().zip(&before.0).all(|(after, before)| after > before);
    ensure!(is_heard, "messages to those concerned went from {:?} to {after:?}", before.0);

    let before = quiet(&others).await?;
    server.set_policy(&policy(r#""alice@""#)).await?;
    bob.loses("web").await?;
    web.loses("bob").await?;
    check_silent(&others, &before, "bob went").await
}

fn policy(members: &str) -> String {
    format!(
        r#"{{
            "groups": {{"group:web": [{members}]}},
            "tagOwners": {{"tag:web": []}},
            "acls": [
                {{"action": "accept", "src": ["group:web"], "dst": ["tag:web:80"]}},
                {{"action": "accept", "src": ["carol@"], "dst": ["tag:web:443"]}},
            ],
        }}"#
    )
}

async fn messages(nodes: &[&Node<'_>]) -> Result<Vec<i64>> {
    let mut counts = Vec::new();
    for node in nodes {
        counts.push(node.map_messages().await?);
    }
    Ok(counts)
}

/// Waits until nodes that have just joined have heard all there is to hear, and returns how many messages that was.
async fn quiet(nodes: &[&Node<'_>]) -> Result<Vec<i64>> {
    eventually(Duration::from_secs(20), "their streams fall silent", async || {
        let before = messages(nodes).await?;
        sleep(SILENCE).await;
        let after = messages(nodes).await?;
        ensure!(before == after, "messages went from {before:?} to {after:?}");
        Ok(after)
    })
    .await
}

async fn check_silent(nodes: &[&Node<'_>], before: &[i64], what: &str) -> Result<()> {
    sleep(SILENCE).await;
    let after = messages(nodes).await?;
    ensure!(before == after, "{what}: messages to others went from {before:?} to {after:?}");
    Ok(())
}
