//! A node store and a streamer around a tailnet of one user's nodes, whose clocks stand still.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh_model::{Clock, Node, NodeId, PreauthKeyId, SessionId, TailnetId, UserId};
use mesh_netmap::MapContext;
use mesh_state::{
    Command, Loaded, NewPreauthKey, NodeUpdate, Outcome, Registration, Settings, State,
};
use mesh_store::{Handle, Writer};
use mesh_streamer::{Compression, MapStream, Message, Streamer, StreamerSettings};
use mesh_testkit::{
    MemoryDatabase, TestClock, at, disco_key, new_preauth_key, new_user, node_key, registration,
};
use mesh_wire::{DerpMap, MapResponse};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// Longer than anything is held back, shorter than any keep-alive.
pub(crate) const QUIET: Duration = Duration::from_secs(1);

/// A server's inside.
pub(crate) struct Lab {
    pub(crate) store: Handle,
    pub(crate) streamer: Streamer,
    pub(crate) contexts: watch::Sender<Arc<MapContext>>,
    pub(crate) stop: CancellationToken,
}

impl Lab {
    /// A lab with a user and a reusable key.
    pub(crate) async fn new() -> Self {
        let lab = Self::with(Loaded::default());
        lab.must(Command::CreateUser(new_user("alice"))).await;
        let key = new_preauth_key("key1", UserId(1));
        lab.must(Command::CreatePreauthKey(NewPreauthKey { reusable: true, ..key })).await;
        lab
    }

    pub(crate) fn with(loaded: Loaded) -> Self {
        let clock = Arc::new(TestClock::new(at(0)));
        let state = State::new(TailnetId(1), loaded, Arc::default(), Settings::default(), at(0));
        let database = Arc::<MemoryDatabase>::default();
        let (writer, store) = Writer::new(state, database, clock.clone());
        tokio::spawn(writer.run(CancellationToken::new()));
        Self::around(store, clock, context("tail.example"))
    }

    /// A streamer for a store.
    pub(crate) fn around(store: Handle, clock: Arc<dyn Clock>, context: Arc<MapContext>) -> Self {
        let (contexts, stop) = (watch::Sender::new(context), CancellationToken::new());
        let settings = StreamerSettings::default();
        let streamer =
            Streamer::new(store.clone(), contexts.subscribe(), clock, settings, stop.clone());
        Self { store, streamer, contexts, stop }
    }

    pub(crate) async fn must(&self, command: Command) -> Outcome {
        self.store.submit(command).await.expect("the command is carried out")
    }

    /// Registers a machine, whose node key has its number.
    pub(crate) async fn register(&self, machine: u64, key: u64) -> NodeId {
        let registration =
            Registration { preauth_key: Some(PreauthKeyId(1)), ..registration(machine, key) };
        let outcome = self.must(Command::Register(Box::new(registration))).await;
        let Outcome::Registered(node) = outcome else { panic!("no node in {outcome:?}") };
        node.id
    }

    /// Registers a machine that is announced to its peers.
    pub(crate) async fn join(&self, machine: u64) -> NodeId {
        let node = self.register(machine, machine).await;
        self.connect(node).await;
        node
    }

    pub(crate) fn node(&self, node: NodeId) -> Option<Arc<Node>> {
        self.store.snapshot().tailnet.node(node).cloned()
    }

    async fn connect(&self, node: NodeId) -> SessionId {
        let key = self.node(node).expect("the node is there").node_key;
        let connect = Command::Connect { node, node_key: key, disco_key: disco_key(node.0.into()) };
        let outcome = self.must(connect).await;
        let Outcome::Connected(session) = outcome else { panic!("no session in {outcome:?}") };
        session
    }

    /// Opens a map stream of a node, as its client would.
    pub(crate) async fn open(&self, node: NodeId, compression: Compression) -> MapStream {
        let session = self.connect(node).await;
        self.streamer.open(node, session, compression)
    }

    /// Opens a map stream and reads its first message.
    pub(crate) async fn follow(&self, node: NodeId) -> MapStream {
        let mut stream = self.open(node, Compression::None).await;
        let first = next(&mut stream).await.expect("the stream begins");
        assert!(first.node.is_some(), "a client ends a session that begins without its node");
        stream
    }

    /// Has a node tell of one endpoint.
    pub(crate) async fn move_to(&self, node: NodeId, port: u16) {
        let known = self.node(node).expect("the node is there");
        self.must(Command::UpdateNode(Box::new(NodeUpdate {
            node,
            node_key: known.node_key,
            disco_key: known.disco_key,
            hostinfo: None,
            endpoints: vec![([192, 0, 2, 1], port).into()],
            home_derp: None,
            capability_version: known.capability_version,
        })))
        .await;
    }

    /// Has a machine go on under another node key.
    pub(crate) async fn rotate(&self, machine: u64, key: u64) {
        let registration = Registration {
            preauth_key: Some(PreauthKeyId(1)),
            old_node_key: Some(node_key(machine)),
            ..registration(machine, key)
        };
        self.must(Command::Register(Box::new(registration))).await;
    }
}

/// A context of this domain.
pub(crate) fn context(base_domain: &str) -> Arc<MapContext> {
    let derp_map = Arc::new(DerpMap { regions: Some([].into()), ..DerpMap::default() });
    let base_domain = base_domain.to_owned();
    Arc::new(MapContext { base_domain, derp_map, ..MapContext::default() })
}

/// The bytes of a message as they go on the wire.
pub(crate) fn bytes_of(message: &Message) -> Bytes {
    message.concat().into()
}

/// The JSON of a frame, which is as long as it says.
pub(crate) fn json_of(frame: &Bytes, compression: Compression) -> Vec<u8> {
    let (length, payload) = frame.split_first_chunk().expect("four bytes of length");
    assert_eq!(u32::from_le_bytes(*length) as usize, payload.len());
    match compression {
        Compression::None => payload.to_vec(),
        Compression::Zstd => zstd::decode_all(payload).expect("a zstd frame"),
    }
}

pub(crate) fn parse(json: &[u8]) -> MapResponse {
    serde_json::from_slice(json).expect("a map response")
}

/// The next message of an uncompressed stream; `None` at its end.
pub(crate) async fn next(stream: &mut MapStream) -> Option<MapResponse> {
    let frame = stream.next().await?;
    Some(parse(&json_of(&bytes_of(&frame), Compression::None)))
}

/// Checks that nothing is said for a while.
pub(crate) async fn check_quiet(stream: &mut MapStream) {
    let said = timeout(QUIET, stream.next()).await;
    assert!(said.is_err(), "{said:?}");
}

/// How long the next frame takes, and the frame.
pub(crate) async fn timed_next(stream: &mut MapStream) -> (Duration, Option<Message>) {
    let start = Instant::now();
    let frame = stream.next().await;
    (start.elapsed(), frame)
}

/// The endpoint ports that a message patches.
pub(crate) fn ports(message: &MapResponse) -> Vec<u16> {
    let endpoints = message.peers_changed_patch.iter().flat_map(|patch| patch.endpoints.iter());
    endpoints.flatten().map(std::net::SocketAddr::port).collect()
}
