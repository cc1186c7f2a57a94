//! A node asks for a tag, when it joins or later. If its user owns the tag it gets it; otherwise, and if there is no such tag,
//! it is refused and its user is told why.

use anyhow::{Context as _, Result, ensure};
use mesh_integration::{Kind, Lab, Node, Server, Setup, Up};

scenario!(ask);

const POLICY: &str = r#"{
    "groups": {"group:web": ["alice@"]},
    "tagOwners": {"tag:web": ["group:web"], "tag:db": ["bob@"]},
}"#;

async fn ask(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    server.create_user("bob").await?;
    server.set_policy(POLICY).await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;

    let refused = Node::spawn(&server, "refused", Kind::default())?;
    for (tags, named) in [
        (&["tag:db"][..], "tag:db"),
        (&["tag:web", "tag:db"], "tag:db"),
        (&["tag:cellar"], "tag:cellar"),
    ] {
        refused.up(Up { auth_key: Some(&key), advertise_tags: tags, ..Up::default() }).await?;
        let told = refused
            .until("is told which tag it may not have", |status| {
                let error = status.error.clone().context("the client shows no error")?;
                ensure!(error.contains(named), "the client shows {error:?}");
                Ok(error)
            })
            .await?;
        eprintln!("asked for {tags:?}: {told}");
    }
    ensure!(server.nodes().await?.is_empty(), "it got in");

    let web = Node::spawn(&server, "web", Kind::default())?;
    web.up(Up { auth_key: Some(&key), advertise_tags: &["tag:web"], ..Up::default() }).await?;
    check_tagged(&web).await?;

    let late = Node::join(&server, "late", Kind::default(), &key).await?;
    let own = late.running().await?;
    ensure!(own.tags.is_empty(), "it has {:?}", own.tags);
    late.up(Up {
        auth_key: Some(&key),
        advertise_tags: &["tag:web"],
        force_reauth: true,
        ..Up::default()
    })
    .await?;
    check_tagged(&late).await?;
    for name in ["web", "late"] {
        let record = server.node(name).await?;
        ensure!(record.tags == ["tag:web"], "{record:?}");
    }
    Ok(())
}

async fn check_tagged(node: &Node<'_>) -> Result<()> {
    node.until("has the tag", |status| {
        let tags = &status.own()?.tags;
        ensure!(tags == &["tag:web"], "it has {tags:?}");
        Ok(())
    })
    .await
}
