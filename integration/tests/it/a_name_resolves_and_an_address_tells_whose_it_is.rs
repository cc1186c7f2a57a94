//! MagicDNS: the client's own resolver knows a peer by name, a dial by name arrives, and `WhoIs` names node and
//! user of an address.

use anyhow::{Result, ensure};
use mesh_integration::{Kind, Lab, Node, Server, Setup};
use serde_json::{Value, json};

scenario!(ask_names);

async fn ask_names(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    server.create_user("bob").await?;
    let key = server.preauth_key("alice", &[]).await?;
    let alpha = Node::join(&server, "alpha", Kind::default(), &key).await?;
    let key = server.preauth_key("bob", &[]).await?;
    let beta = Node::join(&server, "beta", Kind::default(), &key).await?;
    beta.echo(7).await?;
    let peer = alpha.reaches("beta").await?;

    let name = Node::full_name("beta");
    let answer: Value = alpha.call("resolve", json!({"name": name})).await?;
    ensure!(answer == json!({"rcode": "Success", "addresses": [peer.ipv4()?]}), "{name}: {answer}");
    let unknown = Node::full_name("nobody");
    let answer: Value = alpha.call("resolve", json!({"name": unknown})).await?;
    ensure!(answer["rcode"] == "NameError", "{unknown}: {answer}");
    beta.reaches("alpha").await?;
    alpha.transfer(&format!("{name}:7"), 1000).await?;

    for address in peer.addresses {
        let whois = alpha.whois(address).await?;
        ensure!(whois.name == name && whois.user == "bob", "{address}: {whois:?}");
    }
    Ok(())
}
