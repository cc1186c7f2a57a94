//! The one real node, as a client of our own: it folds what it is told and knows when it was told what.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use mesh_client::{ControlClient, Dialer, MapStream, Netmap};
use mesh_keys::{DiscoPublic, MachinePrivate, NodePrivate, NodePublic};
use mesh_wire::{
    CapabilityVersion, Hostinfo, MapRequest, MapResponse, NodeId, RegisterAuth, RegisterRequest,
    SecretText, is_incremental,
};
use tokio::time::{Instant, timeout};

const VERSION: CapabilityVersion = CapabilityVersion::CURRENT;

/// How long a message may be waited for: a map of 250,000 nodes on a busy machine.
const MESSAGE_MAX: Duration = Duration::from_secs(90);

/// A node with an open map stream.
#[derive(Debug)]
pub(crate) struct Viewer {
    client: ControlClient,
    node_key: NodePublic,
    stream: MapStream,
    netmap: Netmap,
    /// Who is there, of the peers that came after the first message.
    newcomers: HashMap<NodePublic, NodeId>,
    /// Messages that a stock client would have rebuilt its netmap for, after the first.
    pub(crate) rebuilt: u32,
}

/// A whole map.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WholeMap {
    /// From the request until all of it was here.
    pub(crate) took: Duration,
    /// On the wire, inside HTTP/2.
    pub(crate) wire_bytes: usize,
    /// Decompressed.
    pub(crate) json_bytes: usize,
}

impl Viewer {
    /// Joins, opens its map stream, and waits for its first map.
    pub(crate) async fn join(dialer: &Dialer, key: &str) -> Result<(Self, WholeMap)> {
        let client = ControlClient::connect(dialer, &MachinePrivate::generate()?, VERSION).await?;
        let node_key = NodePrivate::generate()?.public();
        let request = RegisterRequest {
            version: VERSION,
            node_key,
            auth: Some(RegisterAuth { auth_key: SecretText(key.to_owned()) }),
            hostinfo: Some(hostinfo()),
            ..RegisterRequest::default()
        };
        let response = client.register(&request).await?;
        ensure!(response.machine_authorized, "the viewer was refused: {response:?}");
        let request = MapRequest { stream: true, keep_alive: true, ..map_request(node_key) };
        let (stream, first, whole) = whole_map(&client, &request).await?;
        let mut netmap = Netmap::default();
        netmap.apply(first, Timestamp::UNIX_EPOCH);
        let newcomers = HashMap::new();
        Ok((Self { client, node_key, stream, netmap, newcomers, rebuilt: 0 }, whole))
    }

    /// How many peers it sees.
    pub(crate) fn peers(&self) -> usize {
        self.netmap.peers.len()
    }

    /// The address of a peer that it has seen come.
    pub(crate) fn address(&self, node_key: NodePublic) -> Option<IpAddr> {
        let peer = self.netmap.peers.get(self.newcomers.get(&node_key)?)?;
        Some(peer.addresses.first()?.addr())
    }

    /// Follows its stream until a peer is there, and tells when that was.
    pub(crate) async fn until_seen(&mut self, node_key: NodePublic) -> Result<Instant> {
        self.until(|viewer| viewer.newcomers.contains_key(&node_key)).await
    }

    /// Follows its stream until a peer that it has seen come is gone, and tells when that was.
    pub(crate) async fn until_gone(&mut self, node_key: NodePublic) -> Result<Instant> {
        let at = self.until(|viewer| {
            let id = viewer.newcomers.get(&node_key);
            id.is_none_or(|id| !viewer.netmap.peers.contains_key(id))
        });
        let at = at.await?;
        self.newcomers.remove(&node_key);
        Ok(at)
    }

    async fn until(&mut self, is_so: impl Fn(&Self) -> bool) -> Result<Instant> {
        while !is_so(self) {
            let message =
                timeout(MESSAGE_MAX, self.stream.next()).await.context("no message")??;
            self.fold(message.context("the map stream ended")?);
        }
        Ok(Instant::now())
    }

    fn fold(&mut self, message: MapResponse) {
        let came = message.peers_changed.iter().map(|peer| (peer.key, peer.id));
        self.newcomers.extend(came);
        self.rebuilt += u32::from(!message.keep_alive && !is_incremental(&message));
        // Its clock is not compared with anything: what is online has no last-seen time.
        self.netmap.apply(message, Timestamp::UNIX_EPOCH);
    }

    /// Asks for a whole map beside the stream, and checks that all that was folded adds up to it.
    pub(crate) async fn check_fold(&self) -> Result<WholeMap> {
        let request = MapRequest { read_only: true, ..map_request(self.node_key) };
        let (_, message, whole) = whole_map(&self.client, &request).await?;
        let mut asked = Netmap::default();
        asked.apply(message, Timestamp::UNIX_EPOCH);
        let (folded, asked) = (self.netmap.clone().normalized(), asked.normalized());
        ensure!(folded.peers.len() == asked.peers.len(), "peers are missing or left over");
        let differing: Vec<_> =
            folded.peers.values().filter(|peer| asked.peers.get(&peer.id) != Some(peer)).collect();
        ensure!(differing.is_empty(), "peers differ from the whole map: {differing:?}");
        ensure!(folded == asked, "what was folded is not the whole map");
        Ok(whole)
    }
}

async fn whole_map(
    client: &ControlClient,
    request: &MapRequest,
) -> Result<(MapStream, MapResponse, WholeMap)> {
    let asked_at = Instant::now();
    let mut stream = client.map_stream(request).await?;
    let message = timeout(MESSAGE_MAX, stream.next_message()).await.context("no map")??;
    let took = asked_at.elapsed();
    let message = message.context("the map stream ended")?;
    let (wire_bytes, json) = (message.wire_bytes(), message.json()?);
    let whole = WholeMap { took, wire_bytes, json_bytes: json.len() };
    Ok((stream, serde_json::from_slice(&json)?, whole))
}

fn map_request(node_key: NodePublic) -> MapRequest {
    MapRequest {
        version: VERSION,
        compress: "zstd".to_owned(),
        node_key,
        disco_key: DiscoPublic::from_bytes(*node_key.as_bytes()),
        hostinfo: Some(hostinfo()),
        ..MapRequest::default()
    }
}

fn hostinfo() -> Box<Hostinfo> {
    Box::new(Hostinfo {
        hostname: "viewer".to_owned(),
        os: "linux".to_owned(),
        ..Hostinfo::default()
    })
}
