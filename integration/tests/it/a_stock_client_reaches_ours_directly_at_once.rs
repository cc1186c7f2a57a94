//! Five seconds after a bundled node joined at the latest, a stock client sends to it directly, and hears from it directly: by
//! its own counters nothing of what they say goes by relay any more.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup, eventually};

const BYTES: usize = 1_000_000;

/// From the start of the bundled node's process.
const DIRECT_MAX: Duration = Duration::from_secs(5);

/// No packet carries more.
const PACKET_BYTES_MAX: i64 = 1280;

scenario!(reach);

async fn reach(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let stock = Node::join(&server, "stock", Kind::default(), &key).await?;
    let start = Instant::now();
    let ours = Kind { client: Client::Ours, ..Kind::default() };
    let ours = Node::join(&server, "ours", ours, &key).await?;
    ours.echo(7).await?;
    let peer = stock.reaches("ours").await?;
    let left = DIRECT_MAX.saturating_sub(start.elapsed());
    eventually(left, "bytes go directly", async || {
        let transfer = stock.transfer_to(&peer, 7, 1000).await?;
        ensure!(!transfer.cur_addr.is_empty(), "they go by relay");
        Ok(())
    })
    .await?;

    let before = Counted::by(&stock).await?;
    stock.transfer_to(&peer, 7, BYTES).await?;
    let after = Counted::by(&stock).await?;
    let packets = i64::try_from(BYTES)? / PACKET_BYTES_MAX;
    ensure!(after.directly >= before.directly + 2 * packets, "{before:?}, then {after:?}");
    ensure!(after.relayed == before.relayed, "by relay: {before:?}, then {after:?}");
    Ok(())
}

/// Packets of tunnels that a stock client sent or received; searches for paths are no such.
#[derive(Debug)]
struct Counted {
    directly: i64,
    relayed: i64,
}

impl Counted {
    async fn by(stock: &Node<'_>) -> Result<Self> {
        Ok(Self {
            directly: stock.metric("magicsock_send_udp").await?
                + stock.metric("magicsock_recv_data_ipv4").await?,
            relayed: stock.metric("magicsock_send_derp").await?
                + stock.metric("magicsock_recv_data_derp").await?,
        })
    }
}
