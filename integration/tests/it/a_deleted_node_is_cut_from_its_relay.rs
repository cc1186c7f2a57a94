//! A node that is deleted is cut within a second: from the relay in the server, and from a relay by itself that follows the
//! server's list. Others stay.

use std::time::Duration;

use anyhow::{Context as _, Result};
use mesh_integration::{Lab, Maker, Relay, Server, Setup, Visitor};

scenario!(cut);

/// How soon a deleted node is cut.
const CUT_MAX: Duration = Duration::from_secs(1);

async fn cut(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let mut relay = Relay::new(lab, "relay", Maker::Ours, 900)?;
    relay.follow(&server).await?;
    relay.launch().await?;
    let dialer = server.dialer()?;
    for port in [server.relay_port(), relay.port()] {
        let stays = Visitor::join(&dialer, &key, "stays").await?;
        let goes = Visitor::join(&dialer, &key, "goes").await?;
        let (mut remains, mut ends) = (stays.at_relay(port), goes.at_relay(port));
        remains.connected().await.context("the one that stays")?;
        ends.connected().await.context("the one that goes")?;
        let id = server.node_of(&goes.node_key()).await?.id;
        server.cli(&["nodes", "delete", "--identifier", &id, "--force"]).await?;
        ends.cut_within(CUT_MAX).await?;
        remains.check_connected()?;
        let id = server.node_of(&stays.node_key()).await?.id;
        server.cli(&["nodes", "delete", "--identifier", &id, "--force"]).await?;
    }
    Ok(())
}
