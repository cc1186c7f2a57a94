//! The `tailscale` crate joins and exchanges TCP with tsnet through our relay, while its netmap sees a peer come, change and
//! go. Its decoder ends the map stream at the first message it does not like: it opened one, so it liked them all.

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup, eventually};
use std::time::Duration;

const BYTES: usize = 300_000;

scenario!(stay);

async fn stay(lab: &Lab) -> Result<()> {
    // It cannot pin a certificate, as our own DERP map asks.
    let server = Server::start(lab, Setup { unchecked_relay: true, ..Setup::default() }).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let strict = Kind { client: Client::TailscaleRs, ..Kind::default() };
    let relayed = Kind::by_relay(Client::Tsnet);
    let alpha = Node::join(&server, "alpha", relayed, &key).await?;
    let strict = Node::join(&server, "strict", strict, &key).await?;
    alpha.echo(7).await?;
    strict.echo(7).await?;

    let peer = alpha.reaches("strict").await?;
    let alpha_self = alpha.running().await?;
    eventually(Duration::from_secs(15), "strict knows alpha", async || {
        let whois = strict.whois(alpha_self.ipv4()?).await?;
        ensure!(whois.name == Node::full_name("alpha"), "it knows {whois:?}");
        Ok(())
    })
    .await?;
    alpha.transfer_to(&peer, 7, BYTES).await?;
    strict.transfer_to(&alpha_self, 7, BYTES).await?;

    let gamma = Node::join(&server, "gamma", Kind::default(), &key).await?;
    let gamma_self = gamma.running().await?;
    let id = server.node("gamma").await?.id;
    server.cli(&["nodes", "rename", "--identifier", &id, "delta"]).await?;
    server.cli(&["nodes", "tag", "--identifier", &id, "--tags", "tag:lab"]).await?;
    eventually(Duration::from_secs(15), "strict sees the third node's new name", async || {
        let whois = strict.whois(gamma_self.ipv4()?).await?;
        ensure!(whois.name == Node::full_name("delta"), "it knows {whois:?}");
        Ok(())
    })
    .await?;
    server.cli(&["nodes", "expire", "--identifier", &id]).await?;
    server.cli(&["nodes", "delete", "--identifier", &id, "--force"]).await?;
    eventually(Duration::from_secs(15), "strict no longer sees the third node", async || {
        ensure!(strict.whois(gamma_self.ipv4()?).await.is_err(), "it is still there");
        Ok(())
    })
    .await?;
    strict.transfer_to(&alpha_self, 7, BYTES).await?;

    for name in ["strict", "alpha"] {
        let streams = server.map_streams_opened(&server.node(name).await?)?;
        ensure!(streams == 1, "{name} opened {streams} map streams");
    }
    Ok(())
}
