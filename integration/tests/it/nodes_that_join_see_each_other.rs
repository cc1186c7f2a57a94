//! The oldest client, the newest and a bundled node join with one preauth key; each sees the others' names, addresses and user.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup};

scenario!(meet);

async fn meet(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let old = Kind { client: Client::TsnetOld, ..Kind::default() };
    let alpha = Node::join(&server, "alpha", Kind::default(), &key).await?;
    let beta = Node::join(&server, "beta", old, &key).await?;
    let ours = Kind { client: Client::Ours, ..Kind::default() };
    let gamma = Node::join(&server, "gamma", ours, &key).await?;
    for (one, other) in [(&alpha, &beta), (&beta, &gamma), (&gamma, &alpha)] {
        check_sees(&server, one, other).await?;
        check_sees(&server, other, one).await?;
    }
    Ok(())
}

async fn check_sees(server: &Server<'_>, viewer: &Node<'_>, other: &Node<'_>) -> Result<()> {
    let seen = viewer.reaches(other.name()).await?;
    let own = other.running().await?;
    let record = server.node(other.name()).await?;
    ensure!(seen.name == Node::full_name(other.name()), "it is called {}", seen.name);
    ensure!(seen.user.as_deref() == Some("alice"), "it is {:?}'s", seen.user);
    ensure!(seen.key == own.key && seen.key == record.node_key, "{} is not its key", seen.key);
    ensure!(seen.addresses == own.addresses, "{:?} are not its addresses", seen.addresses);
    ensure!(seen.addresses == record.ip_addresses, "the server says {:?}", record.ip_addresses);
    check_addresses(&seen.addresses)
}

/// One IPv4 address of 100.64.0.0/10 and one IPv6 address of `fd7a:115c:a1e0::/48`, in this order.
fn check_addresses(addresses: &[IpAddr]) -> Result<()> {
    let [IpAddr::V4(v4), IpAddr::V6(v6)] = addresses else {
        anyhow::bail!("not one IPv4 and one IPv6 address: {addresses:?}");
    };
    ensure!(u32::from(*v4) >> 22 == 0x6440_0000 >> 22, "{v4} is not in 100.64.0.0/10");
    ensure!(v6.segments()[..3] == [0xfd7a, 0x115c, 0xa1e0], "{v6} is not in fd7a:115c:a1e0::/48");
    Ok(())
}
