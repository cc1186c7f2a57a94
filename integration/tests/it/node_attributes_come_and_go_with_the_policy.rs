//! Node attributes of the policy are in the capabilities of the nodes they target, as the nodes see themselves, and of no
//! others; another policy takes them away.

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup};
use serde_json::{Value, json};

scenario!(come_and_go);

const ATTRIBUTE: &str = "drive:share";
const APP: &str = "example.com/store";

async fn come_and_go(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    server.create_user("bob").await?;
    let given = r#"{"nodeAttrs": [
        {"target": ["alice@"], "attr": ["drive:share"]},
        {"target": ["alice@"], "app": {"example.com/store": [{"shelf": 7}]}},
    ]}"#;
    let mut nodes = Vec::new();
    for (name, user, client) in [
        ("alice", "alice", Client::Tsnet),
        ("alice-old", "alice", Client::TsnetOld),
        ("bob", "bob", Client::Tsnet),
    ] {
        let key = server.preauth_key(user, &[]).await?;
        nodes.push(Node::join(&server, name, Kind { client, ..Kind::default() }, &key).await?);
    }
    let [alice, alice_old, bob] = &nodes[..] else { unreachable!() };
    server.set_policy(given).await?;
    check_given(alice, true).await?;
    check_given(alice_old, true).await?;
    check_given(bob, false).await?;
    server.set_policy("{}").await?;
    check_given(alice, false).await?;
    check_given(alice_old, false).await?;

    let key = server.preauth_key("alice", &[]).await?;
    server.set_policy(given).await?;
    let late = Node::join(&server, "late", Kind::default(), &key).await?;
    check_given(&late, true).await
}

async fn check_given(node: &Node<'_>, given: bool) -> Result<()> {
    node.until(&format!("has its attributes: {given}"), |status| {
        let capabilities = &status.own()?.cap_map;
        let (attribute, app) = (capabilities.get(ATTRIBUTE), capabilities.get(APP));
        let is_right = if given {
            attribute == Some(&Value::Null) && app == Some(&json!([{"shelf": 7}]))
        } else {
            attribute.is_none() && app.is_none()
        };
        ensure!(is_right, "it has {capabilities:?}");
        Ok(())
    })
    .await
}
