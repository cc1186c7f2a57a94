//! A node that joins with a tagged key has the key's tags, whatever it asks for, and no user. With a user's key it is
//! told which tags it may not have.

use anyhow::{Context as _, Result, ensure};
use mesh_integration::{Kind, Lab, Node, Server, Setup, Up};

scenario!(tag);

async fn tag(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable", "--tags", "tag:lab,tag:db"]).await?;
    let alpha = Node::join(&server, "alpha", Kind::default(), &key).await?;
    let beta = Node::spawn(&server, "beta", Kind::default())?;
    beta.up(Up { auth_key: Some(&key), advertise_tags: &["tag:root"], ..Up::default() }).await?;
    beta.running().await?;
    for (viewer, other) in [(&alpha, &beta), (&beta, &alpha)] {
        let peer = viewer.reaches(other.name()).await?;
        ensure!(peer.tags == ["tag:db", "tag:lab"], "{} has {:?}", peer.name, peer.tags);
        let whois = viewer.whois(peer.ipv4()?).await?;
        ensure!(whois.user == "tagged-devices", "{} is {}'s", peer.name, whois.user);
    }

    let key = server.preauth_key("alice", &[]).await?;
    let gamma = Node::spawn(&server, "gamma", Kind::default())?;
    gamma.up(Up { auth_key: Some(&key), advertise_tags: &["tag:root"], ..Up::default() }).await?;
    gamma
        .until("is told which tag it may not have", |status| {
            let error = status.error.as_deref().context("the client shows no error")?;
            ensure!(error.contains("tag:root"), "the client shows {error:?}");
            Ok(())
        })
        .await
}
