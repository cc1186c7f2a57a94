//! What a policy takes away is taken from bundled nodes as from stock clients, whoever dials: a port that is closed answers no
//! fresh connection while one that is open goes on, for it was let in; who no longer sees the other is cut off.

use anyhow::Result;
use futures_util::future::try_join_all;
use mesh_integration::{Client, Connection, Kind, Lab, Node, Peer, Server, Setup};

const WIDE: &str = r#"{
    "tagOwners": {"tag:dials": [], "tag:listens": []},
    "acls": [{"action": "accept", "src": ["tag:dials"], "dst": ["tag:listens:80,81"]}],
}"#;

const NARROW: &str = r#"{
    "tagOwners": {"tag:dials": [], "tag:listens": []},
    "acls": [{"action": "accept", "src": ["tag:dials"], "dst": ["tag:listens:80"]}],
}"#;

const NOTHING: &str = r#"{"tagOwners": {"tag:dials": [], "tag:listens": []}, "acls": []}"#;

const BYTES: usize = 50_000;

scenario!(cut);

async fn cut(lab: &Lab) -> Result<()> {
    let server = Server::start(lab, Setup::default()).await?;
    server.set_policy(WIDE).await?;
    let dialers = join(&server, "dials").await?;
    let listeners = join(&server, "listens").await?;
    for (listener, _) in &listeners {
        listener.echo(80).await?;
        listener.echo(81).await?;
    }
    let mut pairs = Vec::new();
    for (dialer, _) in &dialers {
        for (_, listener) in &listeners {
            pairs.push(Pair::open(dialer, listener).await?);
        }
    }

    server.set_policy(NARROW).await?;
    try_join_all(pairs.iter().map(Pair::is_narrowed)).await?;
    server.set_policy(NOTHING).await?;
    try_join_all(pairs.iter().map(Pair::is_cut_off)).await?;
    server.set_policy(WIDE).await?;
    try_join_all(pairs.iter().map(Pair::is_open)).await?;
    Ok(())
}

async fn join<'a>(server: &'a Server<'a>, tag: &str) -> Result<Vec<(Node<'a>, Peer)>> {
    let key = server.tagged_key(&format!("tag:{tag}")).await?;
    let mut nodes = Vec::new();
    for (name, client) in [("ours", Client::Ours), ("stock", Client::Tsnet)] {
        let kind = Kind { client, ..Kind::default() };
        let node = Node::join(server, &format!("{name}-{tag}"), kind, &key).await?;
        let own = node.running().await?;
        nodes.push((node, own));
    }
    Ok(nodes)
}

/// A node that dials and one that listens, with a connection to each of its ports.
struct Pair<'a> {
    dialer: &'a Node<'a>,
    listener: &'a Peer,
    open_80: Connection<'a>,
    open_81: Connection<'a>,
}

impl<'a> Pair<'a> {
    async fn open(dialer: &'a Node<'a>, listener: &'a Peer) -> Result<Self> {
        dialer.reaches(listener.label()).await?;
        let open_80 = dialer.open(listener.port(80)?).await?;
        let open_81 = dialer.open(listener.port(81)?).await?;
        Ok(Self { dialer, listener, open_80, open_81 })
    }

    async fn is_narrowed(&self) -> Result<()> {
        self.dialer.until_refused(self.listener.port(81)?).await?;
        self.dialer.until_open(self.listener.port(80)?).await?;
        self.open_80.exchange(BYTES).await?;
        self.open_81.exchange(BYTES).await
    }

    async fn is_cut_off(&self) -> Result<()> {
        self.dialer.loses(self.listener.label()).await?;
        tokio::try_join!(self.open_80.stops(), self.open_81.stops())?;
        Ok(())
    }

    async fn is_open(&self) -> Result<()> {
        self.dialer.reaches(self.listener.label()).await?;
        self.dialer.until_open(self.listener.port(81)?).await?;
        Ok(())
    }
}
