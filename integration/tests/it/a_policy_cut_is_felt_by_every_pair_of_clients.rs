//! What a policy takes away is taken from bundled nodes, stock clients and the `tailscale` crate alike, whoever dials: a port
//! that is closed answers no fresh connection nor datagram, while one that is open goes on; who no longer sees the other is cut
//! off, while others go on. Connections and flows of a closed port go on too, for they were let in, but not where the
//! `tailscale` crate listens, whose packet filter knows none.

use anyhow::Result;
use futures_util::future::try_join_all;
use mesh_integration::{Client, Connection, Flow, Kind, Lab, Node, Peer, Server, Setup};
use serde_json::{Map, Value, json};

const CLIENTS: [(&str, Client); 3] =
    [("ours", Client::Ours), ("stock", Client::Tsnet), ("strict", Client::TailscaleRs)];

const BYTES: usize = 50_000;

/// As much as the `tailscale` crate is given: its TCP sends all it has at once, and waits for up to half a minute where some
/// of it is dropped.
const STRICT_BYTES: usize = 20_000;

const DATAGRAM_BYTES: usize = 1200;

scenario!(cut);

async fn cut(lab: &Lab) -> Result<()> {
    // The `tailscale` crate cannot pin a certificate, as our own DERP map asks.
    let server = Server::start(lab, Setup { unchecked_relay: true, ..Setup::default() }).await?;
    let dialers = join(&server, "dials").await?;
    let listeners = join(&server, "listens").await?;
    let mut pairs = Vec::new();
    for (dialer, _) in &dialers {
        for (listener, address) in &listeners {
            let pair = Pair { dialer, listener, address };
            if !(pair.strict_dials() && pair.strict_listens()) {
                pairs.push(pair);
            }
        }
    }
    for (listener, _) in &listeners {
        for port in [80, 81] {
            listener.echo(port).await?;
            listener.echo_udp(port).await?;
        }
    }

    // Every node has pairs of both kinds, so what it hears cuts off some and lets others go on.
    for half in 0..2 {
        server.set_policy(&policy(&pairs, "80,81")).await?;
        let mut running = Vec::new();
        for pair in &pairs {
            running.push(Running::open(*pair).await?);
        }
        server.set_policy(&policy(&pairs, "80")).await?;
        try_join_all(running.iter().map(Running::is_narrowed)).await?;

        let (kept, cut): (Vec<_>, Vec<_>) =
            running.iter().enumerate().partition(|(number, _)| number % 2 == half);
        let kept_pairs: Vec<_> = kept.iter().map(|(_, running)| running.pair).collect();
        server.set_policy(&policy(&kept_pairs, "80")).await?;
        try_join_all(cut.iter().map(|(_, running)| running.is_cut_off())).await?;
        try_join_all(kept.iter().map(|(_, running)| running.is_narrowed())).await?;
        server.set_policy(&policy(&[], "80")).await?;
        try_join_all(running.iter().map(Running::is_cut_off)).await?;
    }
    server.set_policy(&policy(&pairs, "80,81")).await?;
    try_join_all(pairs.iter().map(Pair::is_open)).await?;
    Ok(())
}

async fn join<'a>(server: &'a Server<'a>, does: &str) -> Result<Vec<(Node<'a>, Peer)>> {
    let mut nodes = Vec::new();
    for (client_name, client) in CLIENTS {
        let name = format!("{client_name}-{does}");
        let key = server.tagged_key(&format!("tag:{name}")).await?;
        let node = Node::join(server, &name, Kind { client, ..Kind::default() }, &key).await?;
        let own = node.running().await?;
        nodes.push((node, own));
    }
    Ok(nodes)
}

/// Lets the dialers of pairs in to some ports of their listeners.
fn policy(pairs: &[Pair<'_>], ports: &str) -> String {
    let mut owners = Map::new();
    for (name, _) in CLIENTS {
        owners.insert(format!("tag:{name}-dials"), json!([]));
        owners.insert(format!("tag:{name}-listens"), json!([]));
    }
    let accept = |source: &Node<'_>, destination: &Node<'_>, ports: &str| {
        let (source, destination) = (source.name(), destination.name());
        json!({
            "action": "accept",
            "src": [format!("tag:{source}")],
            "dst": [format!("tag:{destination}:{ports}")],
        })
    };
    let mut rules: Vec<Value> = Vec::new();
    for pair in pairs {
        rules.push(accept(pair.dialer, pair.listener, ports));
        if pair.strict_dials() {
            // Else its packet filter holds back the answers.
            rules.push(accept(pair.listener, pair.dialer, "*"));
        }
    }
    json!({"tagOwners": owners, "acls": rules}).to_string()
}

/// A node that dials and one that listens.
#[derive(Clone, Copy)]
struct Pair<'a> {
    dialer: &'a Node<'a>,
    listener: &'a Node<'a>,
    address: &'a Peer,
}

impl Pair<'_> {
    fn strict_dials(&self) -> bool {
        self.dialer.client() == Client::TailscaleRs
    }

    fn strict_listens(&self) -> bool {
        self.listener.client() == Client::TailscaleRs
    }

    /// Waits until they have met.
    async fn meets(&self) -> Result<()> {
        self.dialer.knows(self.address).await?;
        if self.strict_dials() || self.strict_listens() {
            self.dialer.has_tunnel_to(self.address, 80).await?;
        }
        Ok(())
    }

    async fn is_open(&self) -> Result<()> {
        self.meets().await?;
        self.dialer.until_open(self.address.port(81)?).await?;
        self.dialer.datagram_to(self.address, 81, DATAGRAM_BYTES).await
    }
}

/// A pair with a connection and a flow to each port of the listener.
struct Running<'a> {
    pair: Pair<'a>,
    connections: [Connection<'a>; 2],
    flows: [Flow<'a>; 2],
}

impl<'a> Running<'a> {
    async fn open(pair: Pair<'a>) -> Result<Self> {
        pair.meets().await?;
        let Pair { dialer, address, .. } = pair;
        let (first, second) = (address.port(80)?, address.port(81)?);
        let connections = [dialer.open(first).await?, dialer.open(second).await?];
        let flows = [dialer.open_flow(first).await?, dialer.open_flow(second).await?];
        Ok(Self { pair, connections, flows })
    }

    async fn is_narrowed(&self) -> Result<()> {
        let Pair { dialer, address, .. } = self.pair;
        dialer.until_refused(address.port(81)?).await?;
        dialer.until_unanswered(address, 81).await?;
        dialer.until_open(address.port(80)?).await?;
        dialer.datagram_to(address, 80, DATAGRAM_BYTES).await?;
        let is_strict = self.pair.strict_dials() || self.pair.strict_listens();
        let bytes = if is_strict { STRICT_BYTES } else { BYTES };
        self.connections[0].exchange(bytes).await?;
        self.flows[0].goes_on().await?;
        if self.pair.strict_listens() {
            tokio::try_join!(self.connections[1].stops(), self.flows[1].stops())?;
            return Ok(());
        }
        self.connections[1].exchange(bytes).await?;
        self.flows[1].goes_on().await
    }

    async fn is_cut_off(&self) -> Result<()> {
        self.pair.dialer.forgets(self.pair.address).await?;
        try_join_all(self.connections.iter().map(Connection::stops)).await?;
        try_join_all(self.flows.iter().map(Flow::stops)).await?;
        Ok(())
    }
}
