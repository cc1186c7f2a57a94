//! A stock client in a tailnet of many small clients, all of them connected: they move, come and go, and it takes
//! in every step in place, and never rebuilds its netmap.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_integration::{Crowd, Kind, Lab, Node, Server, Setup, eventually, nodes};

scenario!(steps_among_many, alone);

/// How many small clients there are by default.
const CLIENTS: usize = 150;

/// How many of them move at once.
const MOVES: u16 = 50;

/// How many come and go.
const VISITORS: usize = 10;

/// How long the client may take to see what happened.
const SEEN_MAX: Duration = Duration::from_secs(30);

async fn steps_among_many(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let ephemeral = server.preauth_key("alice", &["--reusable", "--ephemeral"]).await?;
    let dialer = server.dialer()?;
    let crowd = Crowd::join(&dialer, &key, "small", nodes(CLIENTS)).await?;
    let viewer = Node::join(&server, "viewer", Kind::default(), &key).await?;
    let peers = viewer.status().await?.peers.len();
    ensure!(peers == crowd.len(), "it sees {peers} peers");

    let before = viewer.settled().await?;
    for number in 0..MOVES {
        let endpoint = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 7), 4000 + number));
        crowd.tell(usize::from(number) % crowd.len(), endpoint).await?;
    }
    crowd.heard(0, 7001).await?;
    let moved = viewer.settled().await?;
    ensure!(moved.in_place > before.in_place, "moves: {before:?}, {moved:?}");

    let visitors = Crowd::join(&dialer, &ephemeral, "visitor", VISITORS).await?;
    see(&viewer, peers + VISITORS).await?;
    let came = viewer.settled().await?;
    ensure!(came.in_place > moved.in_place, "visitors: {moved:?}, {came:?}");
    for node in server.nodes().await?.iter().filter(|node| node.given_name.starts_with("visitor")) {
        server.cli(&["nodes", "delete", "--identifier", &node.id, "--force"]).await?;
    }
    see(&viewer, peers).await?;
    drop(visitors);
    let after = viewer.settled().await?;
    ensure!(after.in_place > came.in_place, "visitors that go: {came:?}, {after:?}");
    ensure!(after.rebuilt == before.rebuilt, "a step was no delta: {before:?}, {after:?}");
    eprintln!("{peers} peers: {before:?} before, {after:?} after");
    drop(crowd);
    Ok(())
}

/// Waits until a client sees so many peers.
async fn see(viewer: &Node<'_>, peers: usize) -> Result<()> {
    eventually(SEEN_MAX, &format!("{peers} peers are seen"), async || {
        let seen = viewer.status().await?.peers.len();
        ensure!(seen == peers, "{seen} are");
        Ok(())
    })
    .await
}
