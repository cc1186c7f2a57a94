//! The `tailscale` crate, whose decoder ends the map stream at the first message it does not like, hears of policies with all
//! there is in them, of their ends, and of peers that vanish and return: it liked all messages, and reaches whom it may.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup, eventually};

scenario!(follow);

const HIDDEN: &str = r#"{"tagOwners": {"tag:lab": []}, "acls": []}"#;

/// What can be told to a node: port rules by protocol, capabilities, attributes, ssh rules, routes.
const RICH: &str = r#"{
    "tagOwners": {"tag:lab": [], "tag:router": []},
    "acls": [
        {"action": "accept", "src": ["autogroup:member"], "dst": ["tag:lab:7", "10.77.0.0/24:*"]},
        {"action": "accept", "proto": "udp", "src": ["tag:lab"], "dst": ["alice@:1-1000,2000"]},
    ],
    "grants": [
        {"src": ["tag:lab"], "dst": ["alice@"], "ip": ["tcp:7"], "app": {"example.com/cap": [{"level": 1}]}},
        {"src": ["tag:lab"], "dst": ["alice@"], "app": {"tailscale.com/cap/drive": [{"shares": ["*"]}]}},
    ],
    "nodeAttrs": [{"target": ["*"], "attr": ["drive:access"], "app": {"example.com/store": [{"shelf": 7}]}}],
    "ssh": [
        {"action": "check", "src": ["alice@"], "dst": ["alice@"], "users": ["root"]},
        {"action": "accept", "src": ["alice@"], "dst": ["tag:lab"], "users": ["autogroup:nonroot"]},
    ],
    "autoApprovers": {"routes": {"10.77.0.0/24": ["tag:lab"]}, "exitNode": ["tag:lab"]},
}"#;

const WIDE: &str = "{}";

async fn follow(lab: &Lab) -> Result<()> {
    // It cannot pin a certificate, as our own DERP map asks.
    let server = Server::start(lab, Setup { unchecked_relay: true, ..Setup::default() }).await?;
    server.create_user("alice").await?;
    let relayed = Kind::by_relay(Client::Tsnet);
    let lab_key = server.tagged_key("tag:lab").await?;
    let alpha = Node::join(&server, "alpha", relayed, &lab_key).await?;
    let strict = Kind { client: Client::TailscaleRs, ..Kind::default() };
    let key = server.preauth_key("alice", &[]).await?;
    let strict = Node::join(&server, "strict", strict, &key).await?;
    alpha.echo(7).await?;
    strict.echo(7).await?;
    strict.echo(8).await?;
    let peer = alpha.reaches("strict").await?;
    let own = alpha.running().await?;
    alpha.advertise_routes(&["10.77.0.0/24", "0.0.0.0/0", "::/0"]).await?;

    let id = server.node("alpha").await?.id;
    for (number, policy) in [RICH, HIDDEN, RICH, WIDE, HIDDEN, RICH, WIDE].iter().enumerate() {
        server.set_policy(policy).await?;
        // What it hears after the policy, it hears only if it liked what it heard of the policy.
        let name = format!("alpha-{number}");
        server.cli(&["nodes", "rename", "--identifier", &id, &name]).await?;
        knows(&strict, own.ipv4()?, (*policy != HIDDEN).then_some(&*name)).await?;
        if *policy == RICH {
            alpha.reaches("strict").await?;
            alpha.transfer_to(&peer, 7, 10_000).await?;
            alpha.until_refused(peer.port(8)?).await?;
        }
    }
    // Its packet filter holds back replies too where the policy does not allow all.
    strict.transfer_to(&own, 7, 100_000).await?;
    let streams = server.map_streams_opened(&server.node("strict").await?)?;
    ensure!(streams == 1, "it opened {streams} map streams");
    Ok(())
}

/// Waits until a client knows a node by this name, or not at all.
async fn knows(client: &Node<'_>, address: IpAddr, name: Option<&str>) -> Result<()> {
    let what = format!("{} knows {address} as {name:?}", client.name());
    eventually(Duration::from_secs(15), &what, async || {
        let known = client.whois(address).await.ok().map(|whois| whois.name);
        ensure!(known == name.map(Node::full_name), "it knows {known:?}");
        Ok(())
    })
    .await
}
