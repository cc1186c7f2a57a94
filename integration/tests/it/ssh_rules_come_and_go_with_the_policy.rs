//! The ssh rules of a policy arrive at the nodes they let others into, with whom and as which logins, a check rule with the URL
//! where the client asks; a policy without them takes them away from running clients.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_integration::{Kind, Lab, Node, Server, Setup, eventually};
use serde_json::{Value, json};

scenario!(come_and_go);

const SSH: &str = r#"{
    "tagOwners": {"tag:web": []},
    "ssh": [
        {"action": "accept", "src": ["alice@"], "dst": ["tag:web"], "users": ["deploy"]},
        {"action": "check", "src": ["bob@"], "dst": ["tag:web"], "users": ["root"]},
    ],
}"#;

async fn come_and_go(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    let mut nodes = Vec::new();
    for user in ["alice", "bob"] {
        server.create_user(user).await?;
        let key = server.preauth_key(user, &[]).await?;
        nodes.push(Node::join(&server, user, Kind::default(), &key).await?);
    }
    let [alice, bob] = &nodes[..] else { unreachable!() };
    let key = server.tagged_key("tag:web").await?;
    let web = Node::join(&server, "web", Kind::default(), &key).await?;
    rules(&web, 0).await?;

    server.set_policy(SSH).await?;
    let told = rules(&web, 2).await?;
    // Check rules come first.
    check_rule(&told[0], bob, "root").await?;
    check_rule(&told[1], alice, "deploy").await?;
    let hold = told[0]["action"]["holdAndDelegate"].as_str().unwrap_or_default();
    ensure!(!hold.is_empty(), "where to ask is missing: {}", told[0]);
    ensure!(told[0]["action"]["accept"] != true, "it lets in without asking: {}", told[0]);
    ensure!(told[1]["action"]["accept"] == true, "it does not let in: {}", told[1]);
    rules(alice, 0).await?;

    server.set_policy(r#"{"tagOwners": {"tag:web": []}}"#).await?;
    rules(&web, 0).await?;
    Ok(())
}

/// Waits until a client has so many ssh rules, and returns them.
async fn rules(node: &Node<'_>, count: usize) -> Result<Vec<Value>> {
    let what = format!("{} has {count} ssh rules", node.name());
    eventually(Duration::from_secs(10), &what, async || {
        let netmap: Value = node.call("netmap", json!({})).await?;
        let policy = &netmap["SSHPolicy"];
        let rules = policy["rules"].as_array().cloned().unwrap_or_default();
        ensure!(rules.len() == count, "its ssh policy is {policy}");
        Ok(rules)
    })
    .await
}

/// A rule lets in from all addresses of a node, with one login.
async fn check_rule(rule: &Value, from: &Node<'_>, login: &str) -> Result<()> {
    let addresses = json!(from.running().await?.addresses);
    let mut allowed: Vec<&Value> = Vec::new();
    for principal in rule["principals"].as_array().into_iter().flatten() {
        allowed.push(&principal["nodeIP"]);
    }
    ensure!(json!(allowed) == addresses, "{rule} is not for {addresses}");
    ensure!(rule["sshUsers"][login] == login, "{rule} does not let {login} in");
    Ok(())
}
