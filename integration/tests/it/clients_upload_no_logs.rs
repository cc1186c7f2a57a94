//! A client that would upload its logs to its vendor stops with the first map of a server that is not the vendor's.

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup, Up};

scenario!(keep_logs);

async fn keep_logs(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    for (name, client) in [("alpha", Client::Tsnet), ("beta", Client::TsnetOld)] {
        let node =
            Node::spawn(&server, name, Kind { client, may_upload_logs: true, ..Kind::default() })?;
        node.up(Up { auth_key: Some(&key), ..Up::default() }).await?;
        let told = node.until("runs", |status| {
            ensure!(status.state == "Running", "state {}", status.state);
            Ok(status.logs_disabled)
        });
        ensure!(told.await?, "{name} runs and uploads its logs");
    }
    Ok(())
}
