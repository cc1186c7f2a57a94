//! A node offers a route, an admin approves it, others use it through the node; it is withdrawn, offered again, which needs
//! no second approval, and in the end the admin takes the approval back.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup, eventually};

scenario!(carry);

const ROUTE: &str = "10.77.0.0/24";
/// An address behind the router.
const BEHIND: &str = "10.77.0.9:8080";
const BYTES: usize = 100_000;

async fn carry(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup { tls: true, ..Setup::default() }).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let old = Kind { client: Client::TsnetOld, ..Kind::default() };
    let router = Node::join(&server, "router", Kind::default(), &key).await?;
    let alpha = Node::join(&server, "alpha", Kind::default(), &key).await?;
    let beta = Node::join(&server, "beta", old, &key).await?;
    for user in [&alpha, &beta] {
        user.accept_routes().await?;
        user.reaches("router").await?;
        router.reaches(user.name()).await?;
    }
    router.serve_route(ROUTE).await?;
    router.advertise_routes(&[ROUTE]).await?;
    eventually(Duration::from_secs(10), "the server knows what is offered", async || {
        let record = server.node("router").await?;
        ensure!(record.available_routes == [ROUTE], "{record:?}");
        ensure!(record.subnet_routes.is_empty(), "nobody approved {record:?}");
        Ok(())
    })
    .await?;
    let users = [&alpha, &beta];
    check_unused(&router, users).await?;

    server.approve_routes("router", &[ROUTE]).await?;
    check_used(&router, users).await?;
    let record = server.node("router").await?;
    ensure!(record.subnet_routes == [ROUTE], "{record:?}");

    router.advertise_routes(&[]).await?;
    check_unused(&router, users).await?;
    router.advertise_routes(&[ROUTE]).await?;
    check_used(&router, users).await?;
    server.approve_routes("router", &[]).await?;
    check_unused(&router, users).await
}

/// Waits until the router and its users know that it carries the route, and uses it.
async fn check_used(router: &Node<'_>, users: [&Node<'_>; 2]) -> Result<()> {
    router
        .until("is told that it carries the route", |status| {
            let carried = &status.own()?.primary_routes;
            ensure!(carried == &[ROUTE], "it is told {carried:?}");
            Ok(())
        })
        .await?;
    for user in users {
        let before = user.routed_by("router", ROUTE).await?.tx_bytes;
        user.until_open(BEHIND.parse()?).await?;
        user.transfer(BEHIND, BYTES).await?;
        let sent = user.status().await?.peer("router")?.tx_bytes - before;
        ensure!(sent >= BYTES as u64, "only {sent} bytes went to the router");
    }
    Ok(())
}

async fn check_unused(router: &Node<'_>, users: [&Node<'_>; 2]) -> Result<()> {
    router
        .until("is told that it carries no route", |status| {
            let carried = &status.own()?.primary_routes;
            ensure!(carried.is_empty(), "it is told {carried:?}");
            Ok(())
        })
        .await?;
    for user in users {
        user.until("sees no route", |status| {
            let carried = &status.peer("router")?.primary_routes;
            ensure!(carried.is_empty(), "it sees {carried:?}");
            Ok(())
        })
        .await?;
        user.until_refused(BEHIND.parse()?).await?;
    }
    Ok(())
}
