//! Many small clients of our own, and how soon all of them hear of a change.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use mesh_client::{ControlClient, Dialer, MapStream};
use mesh_keys::{DiscoPublic, MachinePrivate, NodePrivate, NodePublic};
use mesh_wire::{
    CapabilityVersion, Hostinfo, MapRequest, RegisterAuth, RegisterRequest, SecretText,
};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::eventually::eventually;

const VERSION: CapabilityVersion = CapabilityVersion::CURRENT;

/// How many clients of a crowd are on their way in at the same time.
const JOINING_MAX: usize = 64;

/// The longest message that is searched for an endpoint: whole netmaps are longer, and say nothing of one.
const SEARCHED_BYTES_MAX: usize = 128 * 1024;

/// How long a change may take to be heard by all.
const HEARD_MAX: Duration = Duration::from_secs(20);

/// Clients that follow their map streams. Dropping the crowd hangs up.
#[derive(Debug)]
pub struct Crowd {
    members: Vec<Member>,
    board: Arc<Board>,
}

/// A client, and the task that reads its map stream.
#[derive(Debug)]
struct Member {
    client: ControlClient,
    node_key: NodePublic,
    reader: AbortHandle,
}

/// Where readers note what they hear.
#[derive(Debug, Default)]
struct Board {
    sought: Mutex<Sought>,
    /// Readers whose stream is over.
    ended: AtomicUsize,
}

/// An endpoint as it stands in a message, and which readers have heard of it when.
#[derive(Debug, Default)]
struct Sought {
    endpoint: String,
    heard: Vec<Option<Instant>>,
}

impl Crowd {
    /// Registers clients with a reusable preauth key, opens their map streams and waits until each has its netmap.
    pub async fn join(dialer: &Dialer, key: &str, prefix: &str, clients: usize) -> Result<Self> {
        let board = Arc::<Board>::default();
        let member = async |number| {
            let joined = Joined::join(dialer, key, &format!("{prefix}-{number}"), "zstd").await?;
            let Joined { client, node_key, mut stream } = joined;
            let first = stream.next_message().await?;
            ensure!(first.is_some(), "client {number} was told nothing");
            let reader = tokio::spawn(read(stream, board.clone(), number)).abort_handle();
            anyhow::Ok(Member { client, node_key, reader })
        };
        let members = stream::iter(0..clients).map(member).buffered(JOINING_MAX);
        let members = members.try_collect().await?;
        Ok(Self { members, board })
    }

    /// How many clients were let in.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The keys that they are known by.
    pub fn node_keys(&self) -> impl Iterator<Item = NodePublic> {
        self.members.iter().map(|member| member.node_key)
    }

    /// How many of them have lost their map stream.
    pub fn streams_lost(&self) -> usize {
        self.board.ended.load(Ordering::Relaxed)
    }

    /// Has a client tell of its endpoint, by a request beside its stream.
    pub async fn tell(&self, number: usize, endpoint: SocketAddr) -> Result<()> {
        let member = self.members.get(number).context("there is no such client")?;
        member.client.lite_update(&request(member.node_key, vec![endpoint])).await?;
        Ok(())
    }

    /// Has a client tell of an endpoint, and returns how long each other took to hear of it, the slowest last.
    pub async fn heard(&self, number: usize, port: u16) -> Result<Vec<Duration>> {
        let endpoint = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), port));
        *self.board.sought() =
            Sought { endpoint: format!("\"{endpoint}\""), heard: vec![None; self.len()] };
        let told_at = Instant::now();
        self.tell(number, endpoint).await?;
        eventually(HEARD_MAX, "everybody hears of an endpoint", async || {
            let heard = self.board.sought().heard.iter().flatten().count();
            ensure!(heard + 1 >= self.len(), "{heard} of {} have", self.len());
            Ok(())
        })
        .await?;
        let heard = self.board.sought().heard.clone();
        let mut times: Vec<_> = heard.into_iter().flatten().map(|at| at - told_at).collect();
        times.sort_unstable();
        Ok(times)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Board {
    fn sought(&self) -> MutexGuard<'_, Sought> {
        self.sought.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, reader: usize, json: &[u8]) {
        let now = Instant::now();
        let endpoint = self.sought().endpoint.clone();
        if endpoint.is_empty() || !String::from_utf8_lossy(json).contains(&endpoint) {
            return;
        }
        let mut sought = self.sought();
        if sought.endpoint == endpoint
            && let Some(heard) = sought.heard.get_mut(reader)
        {
            heard.get_or_insert(now);
        }
    }
}

async fn read(mut stream: MapStream, board: Arc<Board>, number: usize) {
    while let Ok(Some(message)) = stream.next_message().await {
        if message.wire_bytes() <= SEARCHED_BYTES_MAX
            && let Ok(json) = message.json()
        {
            board.note(number, &json);
        }
    }
    board.ended.fetch_add(1, Ordering::Relaxed);
}

/// A client that is in, and its open map stream.
#[derive(Debug)]
pub(crate) struct Joined {
    client: ControlClient,
    node_key: NodePublic,
    pub(crate) stream: MapStream,
}

impl Joined {
    /// Registers a client with a reusable preauth key and opens its map stream.
    pub(crate) async fn join(
        dialer: &Dialer,
        key: &str,
        hostname: &str,
        compress: &str,
    ) -> Result<Self> {
        let client = ControlClient::connect(dialer, &MachinePrivate::generate()?, VERSION).await?;
        let node_key = NodePrivate::generate()?.public();
        let hostname = hostname.to_owned();
        let registration = RegisterRequest {
            version: VERSION,
            node_key,
            auth: Some(RegisterAuth { auth_key: SecretText(key.to_owned()) }),
            hostinfo: Some(Box::new(Hostinfo { hostname, ..Hostinfo::default() })),
            ..RegisterRequest::default()
        };
        let response = client.register(&registration).await?;
        ensure!(response.machine_authorized, "refused: {response:?}");
        let (compress, keep_alive) = (compress.to_owned(), true);
        let update = request(node_key, Vec::new());
        let update = MapRequest { stream: true, omit_peers: false, compress, keep_alive, ..update };
        let stream = client.map_stream(&update).await?;
        Ok(Self { client, node_key, stream })
    }
}

/// What a client says of itself beside its stream.
fn request(node_key: NodePublic, endpoints: Vec<SocketAddr>) -> MapRequest {
    MapRequest {
        version: VERSION,
        node_key,
        // Peers never speak to it, so any bytes will do for a disco key.
        disco_key: DiscoPublic::from_bytes(*node_key.as_bytes()),
        omit_peers: true,
        endpoints,
        ..MapRequest::default()
    }
}
