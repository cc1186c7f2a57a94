//! A grant with an app capability: the client that receives a connection learns from `WhoIs` what the other one may do, with
//! the values as written; nobody else learns anything. Other values and their end are felt too.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Peer, Server, Setup, eventually};
use serde_json::{Value, json};

scenario!(show);

const CAPABILITY: &str = "example.com/cap/kitchen";

async fn show(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let soup = json!([{"dishes": ["soup & <bread>", "naïve"], "seats": 3}, "guest"]);
    server.set_policy(&policy(&soup)).await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let alpha = Node::join(&server, "alpha", Kind::default(), &key).await?;
    let key = server.tagged_key("tag:kitchen").await?;
    let old = Kind { client: Client::TsnetOld, ..Kind::default() };
    let beta = Node::join(&server, "beta", Kind::default(), &key).await?;
    let gamma = Node::join(&server, "gamma", old, &key).await?;
    let ours = Kind { client: Client::Ours, ..Kind::default() };
    let delta = Node::join(&server, "delta", ours, &key).await?;
    let kitchens = [beta, gamma, delta];
    let alpha_self = alpha.running().await?;
    for kitchen in &kitchens {
        kitchen.reaches("alpha").await?;
        check_capability(kitchen, &alpha_self, Some(&soup)).await?;
        let kitchen = alpha.reaches(kitchen.name()).await?;
        check_capability(&alpha, &kitchen, None).await?;
    }

    let salad = json!([{"dishes": ["salad"]}]);
    server.set_policy(&policy(&salad)).await?;
    for kitchen in &kitchens {
        check_capability(kitchen, &alpha_self, Some(&salad)).await?;
    }

    server.set_policy(r#"{"tagOwners": {"tag:kitchen": []}}"#).await?;
    for kitchen in &kitchens {
        check_capability(kitchen, &alpha_self, None).await?;
    }
    Ok(())
}

fn policy(values: &Value) -> String {
    json!({
        "tagOwners": {"tag:kitchen": []},
        "grants": [{
            "src": ["alice@"], "dst": ["tag:kitchen"], "ip": ["80"], "app": {CAPABILITY: values},
        }],
    })
    .to_string()
}

async fn check_capability(node: &Node<'_>, peer: &Peer, values: Option<&Value>) -> Result<()> {
    let what = format!("{} knows what {} may do", node.name(), peer.name);
    eventually(Duration::from_secs(10), &what, async || {
        let whois = node.whois(peer.ipv4()?).await?;
        ensure!(whois.cap_map.get(CAPABILITY) == values, "{:?}", whois.cap_map);
        Ok(())
    })
    .await
}
