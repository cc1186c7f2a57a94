//! Two clients that may send nothing directly exchange 10 MB through the embedded relay, one direction after the other:
//! with its own certificate, which they pin, and with the server's, which also the oldest client can check.

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup};

const BYTES: usize = 10_000_000;

mod with_a_pinned_certificate {
    use super::{Client, Lab, Result, Setup, transfer_relayed};

    scenario!(transfer);

    async fn transfer(lab: &Lab) -> Result<()> {
        transfer_relayed(lab, Setup::default(), Client::Tsnet).await
    }
}

mod with_the_server_s_certificate {
    use super::{Client, Lab, Result, Setup, transfer_relayed};

    scenario!(transfer);

    async fn transfer(lab: &Lab) -> Result<()> {
        transfer_relayed(lab, Setup { tls: true, ..Setup::default() }, Client::TsnetOld).await
    }
}

async fn transfer_relayed(lab: &Lab, setup: Setup, other: Client) -> Result<()> {
    let server = Server::start(lab, setup).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let alpha = Node::join(&server, "alpha", Kind::by_relay(Client::Tsnet), &key).await?;
    let beta = Node::join(&server, "beta", Kind::by_relay(other), &key).await?;
    beta.sink(7).await?;
    beta.source(8).await?;
    let peer = alpha.reaches("beta").await?;
    beta.reaches("alpha").await?;
    for transfer in
        [alpha.send_to(&peer, 7, BYTES).await?, alpha.receive_from(&peer, 8, BYTES).await?]
    {
        ensure!(transfer.cur_addr.is_empty(), "it went directly to {}", transfer.cur_addr);
    }
    Ok(())
}
