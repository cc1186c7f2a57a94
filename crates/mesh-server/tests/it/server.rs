//! A whole server for a test: on a loopback port, with a database in memory and a clock to turn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use mesh_client::{ControlClient, Dialer};
use mesh_keys::{DerpPrivate, MachinePrivate, MachinePublic, NodePublic};
use mesh_model::{AuthId, Clock, Node, TailnetId, User};
use mesh_netmap::MapContext;
use mesh_noise::Responder;
use mesh_relay::Relay;
use mesh_server::metrics::Metrics;
use mesh_server::secrets::{Attempts, HashCost, KeyKind, Verifier, mint};
use mesh_server::{App, BodyLimits, Listening, Parts, Slots, Timeouts, public_router};
use mesh_state::{Command, Loaded, NewPreauthKey, Outcome, Settings, State};
use mesh_store::{Handle, Writer};
use mesh_streamer::{Streamer, StreamerSettings};
use mesh_testkit::{MemoryDatabase, TestClock, at, new_preauth_key, new_user, node_key};
use mesh_wire::{
    CapabilityVersion, DerpMap, DerpNode, DerpRegion, DerpRegionId, MapRequest, RegisterAuth,
    RegisterRequest, SecretText,
};
use rustls::RootCertStore;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::alarms::Alarms;
use crate::http::{self, Answer};

/// The version that the clients of these tests speak.
pub(crate) const VERSION: CapabilityVersion = CapabilityVersion::CURRENT;

/// Longer than anything here takes on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What a test wants otherwise than an operator does by default.
pub(crate) struct Setup {
    /// How long a client may take for the head of a request.
    pub(crate) header_timeout: Duration,
    /// How long it may take for TLS, and for the first request in a channel.
    pub(crate) handshake_timeout: Duration,
    /// How long it may read nothing of what it is sent.
    pub(crate) stall_timeout: Duration,
    /// Connections that nobody has claimed.
    pub(crate) connections_max: usize,
    /// The host in the URL by which clients know the server.
    pub(crate) host: &'static str,
    /// Whose `X-Forwarded-For` is believed.
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// TLS on the listener.
    pub(crate) tls: Option<TlsAcceptor>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_mins(1),
            connections_max: 20_000,
            host: "127.0.0.1",
            trusted_proxies: Vec::new(),
            tls: None,
        }
    }
}

/// A running server. When it is dropped, the test fails if anything has panicked, or has logged a WARN or an
/// ERROR that the test did not announce.
pub(crate) struct TestServer {
    pub(crate) address: SocketAddr,
    pub(crate) noise_key: MachinePublic,
    pub(crate) store: Handle,
    pub(crate) database: Arc<MemoryDatabase>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) app: App,
    stop: CancellationToken,
    connections: TaskTracker,
    channels: TaskTracker,
    /// What clients are told of relays and DNS. Streams end with it.
    pub(crate) contexts: watch::Sender<Arc<MapContext>>,
    alarms: Alarms,
}

fn cost() -> HashCost {
    HashCost::new(8, 1).unwrap()
}

impl TestServer {
    /// An empty tailnet.
    pub(crate) async fn start() -> Self {
        Self::start_as(Setup::default()).await
    }

    /// An empty tailnet, served otherwise than by default.
    pub(crate) async fn start_as(setup: Setup) -> Self {
        let alarms = Alarms::listen();
        let clock = Arc::new(TestClock::new(at(0)));
        let database = Arc::new(MemoryDatabase::default());
        let stop = CancellationToken::new();
        let state = State::new(
            TailnetId(1),
            Loaded::default(),
            Arc::default(),
            Settings::default(),
            clock.now(),
        );
        let (writer, store) = Writer::new(state, database.clone(), clock.clone());
        // The writer outlives whoever needs it: it stops with the runtime.
        tokio::spawn(writer.run(CancellationToken::new()));

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let noise_key = MachinePrivate::from_bytes([250; 32]);
        let verifier = Arc::new(Verifier::new(cost()).unwrap());
        let slots = Slots::new(setup.connections_max, setup.connections_max);
        let (connections, channels) = (TaskTracker::new(), TaskTracker::new());
        let context_writer = watch::Sender::new(Arc::new(map_context()));
        let contexts = context_writer.subscribe();
        let app = App::new(Parts {
            store: store.clone(),
            streamer: Streamer::new(
                store.clone(),
                contexts.clone(),
                clock.clone(),
                StreamerSettings::default(),
                stop.clone(),
            ),
            contexts,
            verifier,
            attempts: Arc::new(Attempts::new()),
            responder: Responder::new(&noise_key),
            noise_key: noise_key.public(),
            server_url: format!("http://{}:{}", setup.host, address.port()),
            relay: Some(relay(stop.clone())),
            database: database.clone(),
            bodies: BodyLimits::default(),
            handshakes: Arc::new(Semaphore::new(2)),
            timeouts: Timeouts {
                first_request: setup.handshake_timeout,
                stall: setup.stall_timeout,
            },
            slots: slots.clone(),
            metrics: Metrics::default(),
            clock: clock.clone(),
            stop: stop.clone(),
            channels: channels.clone(),
        });
        let listening = Listening {
            router: public_router(app.clone()),
            slots,
            header_timeout: setup.header_timeout,
            tls_timeout: setup.handshake_timeout,
            stall_timeout: setup.stall_timeout,
            trusted_proxies: setup.trusted_proxies.into(),
            stop: stop.clone(),
            connections: connections.clone(),
        };
        connections.spawn(listening.run_tcp(listener, setup.tls));
        Self {
            address,
            noise_key: noise_key.public(),
            store,
            database,
            clock,
            app,
            stop,
            connections,
            channels,
            contexts: context_writer,
            alarms,
        }
    }

    /// Announces WARN or ERROR lines that hold `text`.
    pub(crate) fn expect_alarm(&self, text: &'static str) {
        self.alarms.expect(text);
    }

    /// Tells it to stop, as a signal does.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until every connection and channel has ended.
    pub(crate) async fn stopped(&self) {
        self.connections.close();
        self.channels.close();
        within(self.connections.wait()).await;
        within(self.channels.wait()).await;
    }

    /// How many channels are open.
    pub(crate) fn channels(&self) -> usize {
        self.channels.len()
    }

    /// How many connections are open that are no channels, the listener's task among them.
    pub(crate) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// A bare connection.
    pub(crate) async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Gets a page.
    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.ask(&format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")).await
    }

    /// Sends a request of HTTP/1.1 as it is written here, over a connection of its own.
    pub(crate) async fn ask(&self, request: &str) -> Answer {
        http::ask(&mut self.connect().await, request).await
    }

    /// A channel of the machine of this number.
    pub(crate) async fn client(&self, machine: u8) -> ControlClient {
        let url = format!("http://{}", self.address).parse().unwrap();
        let dialer = Dialer::new(url, RootCertStore::empty());
        let machine_key = machine_private(machine);
        ControlClient::connect_to(&dialer, &machine_key, VERSION, self.noise_key).await.unwrap()
    }

    /// A channel of a machine whose node, of the same number, is registered.
    pub(crate) async fn join(&self, number: u8) -> ControlClient {
        let key = self.preauth_key(|key| key).await;
        let client = self.client(number).await;
        let response = client.register(&register_request(number, &key)).await.unwrap();
        assert!(response.machine_authorized, "{response:?}");
        client
    }

    /// The node with the key of this number.
    pub(crate) fn node(&self, number: u8) -> Option<Arc<Node>> {
        self.node_by_key(&node_key(number.into()))
    }

    pub(crate) fn node_by_key(&self, key: &NodePublic) -> Option<Arc<Node>> {
        self.store.snapshot().tailnet.node_by_key(key).cloned()
    }

    /// The one user of the tests.
    pub(crate) async fn user(&self) -> Arc<User> {
        let known = self.store.snapshot().tailnet.users().next().cloned();
        if let Some(user) = known {
            return user;
        }
        let outcome = self.submit(Command::CreateUser(new_user("ada"))).await;
        let Outcome::User(user) = outcome else { panic!("{outcome:?}") };
        user
    }

    /// Mints a single-use preauth key of that user, changed as the test wants it, and returns its text. The server does
    /// not remember it, as if it was minted before a restart.
    pub(crate) async fn preauth_key(
        &self,
        change: impl FnOnce(NewPreauthKey) -> NewPreauthKey,
    ) -> String {
        let user = self.user().await.id;
        let minted = mint(KeyKind::Preauth, &cost()).unwrap();
        let key = NewPreauthKey { secret: minted.secret, ..new_preauth_key("", user) };
        self.submit(Command::CreatePreauthKey(change(key))).await;
        minted.text
    }

    /// Carries out a command that must succeed.
    pub(crate) async fn submit(&self, command: Command) -> Outcome {
        self.store.submit(command).await.unwrap()
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(wait).await;
    }
}

/// What comes of something that must not take long.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("it takes too long")
}

pub(crate) fn machine_private(number: u8) -> MachinePrivate {
    MachinePrivate::from_bytes([number; 32])
}

/// The auth id in the URL that a client is sent to.
pub(crate) fn auth_id(auth_url: &str) -> AuthId {
    auth_url.rsplit('/').next().unwrap().parse().unwrap()
}

/// A request to register the node key of this number, with a preauth key unless that is empty.
pub(crate) fn register_request(number: u8, auth_key: &str) -> RegisterRequest {
    let auth = RegisterAuth { auth_key: SecretText(auth_key.to_owned()) };
    RegisterRequest {
        version: VERSION,
        node_key: node_key(number.into()),
        auth: (!auth_key.is_empty()).then_some(auth),
        hostinfo: Some(Box::new(mesh_wire::Hostinfo {
            hostname: format!("machine-{number}"),
            os: "linux".to_owned(),
            ..mesh_wire::Hostinfo::default()
        })),
        ..RegisterRequest::default()
    }
}

/// A map request of the node key of this number: a stream in plain JSON.
pub(crate) fn map_request(number: u8) -> MapRequest {
    MapRequest {
        version: VERSION,
        node_key: node_key(number.into()),
        stream: true,
        keep_alive: true,
        ..MapRequest::default()
    }
}

fn map_context() -> MapContext {
    let region_id = DerpRegionId(900);
    let node = DerpNode {
        name: "900a".to_owned(),
        region_id,
        host_name: "localhost".to_owned(),
        ..DerpNode::default()
    };
    let region = DerpRegion { region_id, nodes: vec![node], ..DerpRegion::default() };
    let derp_map =
        DerpMap { regions: Some([(region_id, region)].into()), ..DerpMap::default() }.into();
    MapContext { base_domain: "test.internal".to_owned(), derp_map, ..MapContext::default() }
}

fn relay(stop: CancellationToken) -> Relay {
    let admits_nobody = |_: &NodePublic| false;
    Relay::new(DerpPrivate::from_bytes([251; 32]), Arc::new(admits_nobody), stop)
}
