//! Every pair of clients talks: bundled nodes, stock clients and the `tailscale` crate find each other by name, exchange TCP and
//! UDP both ways, directly and by relay alone, and say who calls and what the policy lets the caller do.

use anyhow::{Context as _, Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Peer, Server, Setup};
use serde_json::json;

const CAPABILITY: &str = "example.com/cap/matrix";

/// Fits into the relay's queue: the `tailscale` crate's TCP sends all it has at once, and waits for up to half a minute where
/// some of it is dropped.
const BYTES: usize = 20_000;

/// As much as fits into one packet.
const DATAGRAM_BYTES: usize = 1200;

/// The `tailscale` crate tells no users nor capabilities, and knows no paths. It is not asked of the others whether they reach it
/// directly: where its questions for its own addresses disturb each other (`EBUSY`), it tells nobody any.
const CLIENTS: [(&str, Client); 6] = [
    ("strict", Client::TailscaleRs),
    ("ours", Client::Ours),
    ("ours-too", Client::Ours),
    ("stock", Client::Tsnet),
    ("stock-too", Client::Tsnet),
    ("old", Client::TsnetOld),
];

mod directly {
    use super::{Lab, Result, every_pair_talks};

    scenario!(talk);

    async fn talk(lab: &Lab) -> Result<()> {
        every_pair_talks(lab, false).await
    }
}

mod by_relay_alone {
    use super::{Lab, Result, every_pair_talks};

    scenario!(talk);

    async fn talk(lab: &Lab) -> Result<()> {
        every_pair_talks(lab, true).await
    }
}

async fn every_pair_talks(lab: &Lab, relay_only: bool) -> Result<()> {
    // The `tailscale` crate cannot pin a certificate, as our own DERP map asks.
    let server = Server::start(lab, Setup { unchecked_relay: true, ..Setup::default() }).await?;
    server.create_user("alice").await?;
    let grant =
        json!({"src": ["*"], "dst": ["*"], "ip": ["*"], "app": {CAPABILITY: [{"level": 1}]}});
    server.set_policy(&json!({"grants": [grant]}).to_string()).await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let mut nodes: Vec<(Node<'_>, Peer)> = Vec::new();
    for (name, client) in CLIENTS {
        let kind = Kind { client, relay_only, ..Kind::default() };
        let node = Node::join(&server, name, kind, &key).await?;
        let own = node.running().await?;
        node.echo(7).await?;
        node.echo_udp(7).await?;
        for (before, peer) in &nodes {
            meet((before, peer), (&node, &own), relay_only)
                .await
                .with_context(|| format!("{} and {name}", before.name()))?;
        }
        nodes.push((node, own));
    }
    Ok(())
}

/// Has two nodes talk, one after the other.
async fn meet(one: (&Node<'_>, &Peer), other: (&Node<'_>, &Peer), relay_only: bool) -> Result<()> {
    let with_strict = is_strict(one.0) || is_strict(other.0);
    for ((node, own), (_, peer)) in [(one, other), (other, one)] {
        node.knows(peer).await?;
        if !is_strict(node) {
            node.reaches(peer.label()).await?;
        }
        let to = format!("{}:7", peer.name);
        node.transfer(&to, BYTES).await?;
        node.datagram_to(peer, 7, DATAGRAM_BYTES).await?;
        check_whois(node, peer).await.with_context(|| format!("{} asks", own.name))?;
        if !relay_only && !with_strict {
            node.reaches_directly(peer).await?;
        }
        let transfer = node.transfer(&to, BYTES).await?;
        let is_direct = !transfer.cur_addr.is_empty();
        ensure!(is_direct != relay_only || with_strict && !is_direct, "it went by {transfer:?}");
    }
    Ok(())
}

fn is_strict(node: &Node<'_>) -> bool {
    node.client() == Client::TailscaleRs
}

async fn check_whois(node: &Node<'_>, peer: &Peer) -> Result<()> {
    let whois = node.whois(peer.ipv4()?).await?;
    ensure!(whois.name == peer.name, "it is {}", whois.name);
    if !is_strict(node) {
        ensure!(whois.user == "alice", "it is {:?}'s", whois.user);
        let values = whois.cap_map.get(CAPABILITY);
        ensure!(values == Some(&json!([{"level": 1}])), "it may do {:?}", whois.cap_map);
    }
    Ok(())
}
