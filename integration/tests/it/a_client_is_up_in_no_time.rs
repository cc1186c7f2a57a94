//! A client runs and has a home relay soon after `tailscale up`; a relay whose IPv6 address is left open would cost it 3 s.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup, Up};

scenario!(come_up, alone);

const UP_MAX: Duration = Duration::from_millis(2500);

async fn come_up(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup { tls: true, ..Setup::default() }).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    for (name, client) in [("alpha", Client::Tsnet), ("beta", Client::TsnetOld)] {
        let node = Node::spawn(&server, name, Kind { client, ..Kind::default() })?;
        node.up(Up { auth_key: Some(&key), ..Up::default() }).await?;
        node.until_within(UP_MAX, "runs with a home relay", |status| {
            ensure!(status.state == "Running", "state {}", status.state);
            ensure!(!status.own()?.relay.is_empty(), "it has no home relay");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
