//! A client that is started again is the node that it was, although its key is spent; others saw it leave and come back.

use anyhow::{Result, ensure};
use mesh_integration::{Client, Kind, Lab, Node, Server, Setup, Up};

scenario!(start_again);

async fn start_again(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &[]).await?;
    let alpha = Node::join(&server, "alpha", Kind::default(), &key).await?;
    let mut restarted = Vec::new();
    let clients = [("beta", Client::Tsnet), ("gamma", Client::TsnetOld), ("delta", Client::Ours)];
    for (name, client) in clients {
        let spent = server.preauth_key("alice", &[]).await?;
        let node = Node::join(&server, name, Kind { client, ..Kind::default() }, &spent).await?;
        let (before, id) = (node.running().await?, server.node(name).await?.id);
        alpha.reaches(name).await?;
        restarted.push((node.restart().await?, spent, before, id));
    }
    for (node, spent, before, id) in restarted {
        let name = node.name();
        alpha
            .until(&format!("{name} is offline"), |status| {
                ensure!(!status.peer(name)?.online, "it is online");
                Ok(())
            })
            .await?;
        node.up(Up { auth_key: Some(&spent), ..Up::default() }).await?;
        let after = node.running().await?;
        ensure!(after.key == before.key, "{name} has another node key");
        ensure!(after.addresses == before.addresses, "{name} got {:?}", after.addresses);
        ensure!(server.node(name).await?.id == id, "{name} became another node");
        alpha.reaches(name).await?;
    }
    Ok(())
}
