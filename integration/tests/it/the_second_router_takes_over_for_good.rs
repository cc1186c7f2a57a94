//! Two routers carry one route. When the first stops, users go through the second, and still do when the first is back.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup, Up, eventually};
use tokio::time::{Instant, sleep};

scenario!(take_over);

const ROUTE: &str = "10.77.0.0/24";
/// An address behind the routers.
const BEHIND: &str = "10.77.0.9:8080";
const BYTES: usize = 100_000;
/// Counted from the end of its process: the 10 s after which a node without a map stream counts as gone, and 1 s until users hear of it; the rest is for
/// a loaded machine.
const TAKEN_OVER_MAX: Duration = Duration::from_secs(20);
/// How long the first router is back before it is judged that it got nothing back.
const BACK: Duration = Duration::from_secs(1);

async fn take_over(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup { tls: true, ..Setup::default() }).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let old = Kind { client: Client::TsnetOld, ..Kind::default() };
    let alpha = Node::join(&server, "alpha", Kind::default(), &key).await?;
    let beta = Node::join(&server, "beta", old, &key).await?;
    let first = join_router(&server, "first", &key).await?;
    let second = join_router(&server, "second", &key).await?;
    let users = [&alpha, &beta];
    for user in users {
        user.accept_routes().await?;
        for router in [&first, &second] {
            user.reaches(router.name()).await?;
            router.reaches(user.name()).await?;
        }
        check_carried(user, "first", "second").await?;
    }

    let start = Instant::now();
    first.close().await?;
    for user in users {
        user.until_within(TAKEN_OVER_MAX, "is routed by the second", |status| {
            let routes = &status.peer("second")?.primary_routes;
            ensure!(routes == &[ROUTE], "the second carries {routes:?}");
            Ok(())
        })
        .await?;
    }
    eprintln!("the second took over {:.1?} after the first began to shut down", start.elapsed());
    for user in users {
        check_carried(user, "second", "first").await?;
    }

    let first = Node::spawn(&server, "first", Kind::default())?;
    first.up(Up::default()).await?;
    first.running().await?;
    // tsnet forgets it.
    offer(&first).await?;
    for user in users {
        user.reaches("first").await?;
    }
    eventually(Duration::from_secs(10), "the first offers the route again", async || {
        let record = server.node("first").await?;
        ensure!(record.online && record.available_routes == [ROUTE], "{record:?}");
        Ok(())
    })
    .await?;
    sleep(BACK).await;
    for user in users {
        check_carried(user, "second", "first").await?;
    }
    Ok(())
}

async fn join_router<'a>(server: &'a Server<'a>, name: &str, key: &str) -> Result<Node<'a>> {
    let router = Node::join(server, name, Kind::default(), key).await?;
    offer(&router).await?;
    server.approve_routes(name, &[ROUTE]).await?;
    Ok(router)
}

async fn offer(router: &Node<'_>) -> Result<()> {
    router.serve_route(ROUTE).await?;
    router.advertise_routes(&[ROUTE]).await
}

/// Uses the route, and checks through whom that went.
async fn check_carried(user: &Node<'_>, router: &str, idle: &str) -> Result<()> {
    let before = user.routed_by(router, ROUTE).await?.tx_bytes;
    user.until_open(BEHIND.parse()?).await?;
    user.transfer(BEHIND, BYTES).await?;
    let status = user.status().await?;
    let sent = status.peer(router)?.tx_bytes - before;
    ensure!(sent >= BYTES as u64, "only {sent} bytes went to the {router}");
    let idle = status.peer(idle)?;
    ensure!(idle.primary_routes.is_empty(), "{} carries {:?} too", idle.name, idle.primary_routes);
    Ok(())
}
