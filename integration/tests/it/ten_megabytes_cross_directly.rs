//! The newest client sends 10 MB to the oldest over UDP, without the relay, and gets them back.

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup};

const BYTES: usize = 10_000_000;

scenario!(transfer_directly);

async fn transfer_directly(lab: &Lab) -> Result<()> {
    // The oldest client cannot pin the certificate of a relay, and without one it is slow to find the way.
    let server = Server::start(lab, Setup { tls: true, ..Setup::default() }).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let old = Kind { client: Client::TsnetOld, ..Kind::default() };
    let alpha = Node::join(&server, "alpha", Kind::default(), &key).await?;
    let beta = Node::join(&server, "beta", old, &key).await?;
    beta.echo(7).await?;
    let peer = alpha.reaches("beta").await?;
    beta.reaches("alpha").await?;
    alpha.reaches_directly(&peer).await?;
    let transfer = alpha.transfer_to(&peer, 7, BYTES).await?;
    ensure!(!transfer.cur_addr.is_empty(), "it went through the relay");
    Ok(())
}
