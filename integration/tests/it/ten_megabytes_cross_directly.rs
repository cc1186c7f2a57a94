//! The newest client sends 10 MB to the oldest over UDP, without the relay, and takes 10 MB from it. One after the
//! other: where both directions of one connection are full at once and packets are lost, the TCP of the two clients can
//! wait for each other in retransmissions of 12.8 s.

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
    beta.sink(7).await?;
    beta.source(8).await?;
    let peer = alpha.reaches("beta").await?;
    beta.reaches("alpha").await?;
    alpha.reaches_directly(&peer).await?;
    for transfer in
        [alpha.send_to(&peer, 7, BYTES).await?, alpha.receive_from(&peer, 8, BYTES).await?]
    {
        ensure!(!transfer.cur_addr.is_empty(), "it went through the relay");
    }
    Ok(())
}
