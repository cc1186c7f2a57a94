//! A relay that runs on its own, and follows a server's list of nodes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh_derp::{ClientInfo, ClientLogin};
use mesh_derp_verify::{ApiKeySource, Asks, Options, Verifier, VerifyStats};
use mesh_keys::{DerpPrivate, NodePrivate, NodePublic};
use mesh_model::{Clock as _, NodeId};
use mesh_relay::{Relay, Upgrade};
use mesh_server::api::{Access, AppState, router};
use mesh_server::metrics::Metrics;
use mesh_server::secrets::{HashCost, KeyKind, mint};
use mesh_server::{Listening, Slots};
use mesh_state::{Command, Outcome};
use mesh_testkit::new_user;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::server::{TestServer, register_request, within};

/// How soon a node that may no longer use the relay is off it.
const CUT_MAX: Duration = Duration::from_secs(1);

/// Bytes of the frame by which a relay greets.
const GREETING_BYTES: usize = 45;

/// The admin API of a server, on listeners of its own.
struct Admin {
    stop: CancellationToken,
    connections: TaskTracker,
}

impl Admin {
    fn new() -> Self {
        Self { stop: CancellationToken::new(), connections: TaskTracker::new() }
    }

    fn listening(&self, server: &TestServer, access: Access) -> Listening {
        let app = &server.app;
        let state = AppState {
            store: app.store.clone(),
            verifier: app.verifier.clone(),
            attempts: app.attempts.clone(),
            clock: app.clock.clone(),
            contexts: app.contexts.clone(),
            database: app.database.clone(),
            policy_file: None,
            access,
            metrics: Metrics::default(),
            body_bytes_max: 1024,
            stop: self.stop.clone(),
        };
        let second = Duration::from_secs(10);
        Listening {
            router: router(state),
            slots: Slots::new(100, 100),
            header_timeout: second,
            tls_timeout: second,
            stall_timeout: second,
            trusted_proxies: [].into(),
            stop: self.stop.clone(),
            connections: self.connections.clone(),
        }
    }

    /// Serves those with an API key at `address`, and returns the URL.
    async fn listen(&self, server: &TestServer, address: &str) -> String {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        self.connections.spawn(self.listening(server, Access::ApiKeys).run_tcp(listener, None));
        format!("http://{address}")
    }

    /// Stops as a server does that was told to.
    async fn stop(self) {
        self.stop.cancel();
        self.connections.close();
        within(self.connections.wait()).await;
    }
}

/// A relay on its own.
struct Alone {
    relay: Relay,
    stats: Arc<VerifyStats>,
    _stop: DropGuard,
    _follower: Option<AbortOnDropHandle<()>>,
}

impl Alone {
    fn new(asks: Asks) -> Self {
        let verifier = Verifier::new(Options { asks, fail_open: false }).unwrap();
        let stop = CancellationToken::new();
        let private_key = DerpPrivate::from_bytes([0x52; 32]);
        let relay = Relay::new(private_key, verifier.admission(), stop.clone());
        let stats = Arc::clone(verifier.stats());
        let follower = verifier.spawn(relay.clone(), stop.clone());
        Self { relay, stats, _stop: stop.drop_guard(), _follower: follower }
    }

    async fn until(&self, holds: impl Fn(&VerifyStats) -> bool) {
        let wait = async {
            while !holds(&self.stats) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        within(wait).await;
    }

    /// Logs a client in; `None` if it is refused.
    async fn join(&self, number: u8) -> Option<Client> {
        let (mut ours, theirs) = tokio::io::duplex(64 << 10);
        let relay = self.relay.clone();
        tokio::spawn(async move { relay.serve_upgraded(theirs, Upgrade::Derp, None).await });
        within(ours.read_exact(&mut [0; GREETING_BYTES])).await.unwrap();
        let login = ClientLogin::new(&private(number), &self.relay.public_key()).unwrap();
        let mut hello = Vec::new();
        login.encode_client_info([1; 24], &ClientInfo::default(), &mut hello);
        ours.write_all(&hello).await.unwrap();
        within(ours.read_u8()).await.is_ok().then_some(Client(ours))
    }

    /// Logs a client in as soon as the relay has heard of its node.
    async fn join_soon(&self, number: u8) -> Client {
        let wait = async {
            loop {
                if let Some(client) = self.join(number).await {
                    return client;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        within(wait).await
    }
}

/// A client that is logged in.
struct Client(DuplexStream);

impl Client {
    /// Waits until the relay has cut it.
    async fn cut(mut self) {
        within(self.0.read_to_end(&mut Vec::new())).await.unwrap();
    }
}

fn private(number: u8) -> NodePrivate {
    NodePrivate::from_bytes([number; 32])
}

fn key(number: u8) -> NodePublic {
    private(number).public()
}

/// Registers a node whose private key is known.
async fn register(server: &TestServer, number: u8) -> NodeId {
    let auth_key = server.preauth_key(|key| key).await;
    let mut request = register_request(number, &auth_key);
    request.node_key = key(number);
    server.client(number).await.register(&request).await.unwrap();
    server.node_by_key(&key(number)).unwrap().id
}

async fn api_key(server: &TestServer) -> String {
    let minted = mint(KeyKind::Api, &HashCost::new(8, 1).unwrap()).unwrap();
    let command = Command::CreateApiKey { secret: minted.secret, expires_at: None };
    let Outcome::ApiKey(_) = server.submit(command).await else { panic!("a key is made") };
    minted.text
}

/// A server with its admin API, and a relay that follows it.
async fn following() -> (TestServer, Admin, Alone, String) {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = TestServer::start().await;
    let admin = Admin::new();
    let url = admin.listen(&server, "127.0.0.1:0").await;
    let api_key = api_key(&server).await;
    let api_key = ApiKeySource::new(move || Ok(api_key.clone()));
    let relay = Alone::new(Asks::Control { url: url.clone(), api_key });
    relay.until(VerifyStats::is_following).await;
    (server, admin, relay, url)
}

#[tokio::test]
async fn a_relay_elsewhere_serves_our_nodes_and_cuts_those_that_are_deleted() {
    let (server, _admin, relay, _) = following().await;
    assert!(relay.join(1).await.is_none());
    let node = register(&server, 1).await;
    register(&server, 2).await;
    let one = relay.join_soon(1).await;
    let _two = relay.join_soon(2).await;
    let since = Instant::now();
    server.submit(Command::DeleteNode { node }).await;
    one.cut().await;
    assert!(since.elapsed() < CUT_MAX, "{:?}", since.elapsed());
    assert!(relay.join(1).await.is_none());
    assert!(relay.relay.is_connected(&key(2)));
}

#[tokio::test]
async fn a_node_whose_key_expires_is_cut() {
    let (server, _admin, relay, _) = following().await;
    let node = register(&server, 1).await;
    let one = relay.join_soon(1).await;
    let since = Instant::now();
    server.submit(Command::SetNodeExpiry { node, expires_at: Some(server.clock.now()) }).await;
    one.cut().await;
    assert!(since.elapsed() < CUT_MAX);
    server.submit(Command::SetNodeExpiry { node, expires_at: None }).await;
    relay.join_soon(1).await;
}

#[tokio::test]
async fn a_node_whose_key_runs_out_by_itself_is_cut() {
    let (server, _admin, relay, _) = following().await;
    let node = register(&server, 1).await;
    let expires_at = server.clock.now() + Duration::from_mins(1);
    server.submit(Command::SetNodeExpiry { node, expires_at: Some(expires_at) }).await;
    let one = relay.join_soon(1).await;
    server.clock.advance(Duration::from_mins(1));
    // The writer's sleep does not hear of a clock that a test turns; any command wakes it.
    server.submit(Command::CreateUser(new_user("eve"))).await;
    one.cut().await;
}

#[tokio::test]
async fn a_server_that_was_away_cuts_when_it_is_back() {
    let (server, admin, relay, url) = following().await;
    let node = register(&server, 1).await;
    register(&server, 2).await;
    let one = relay.join_soon(1).await;
    let _two = relay.join_soon(2).await;
    server.expect_alarm("the control server has ended it");
    admin.stop().await;
    relay.until(|stats| !stats.is_following()).await;
    server.submit(Command::DeleteNode { node }).await;
    assert!(relay.join(1).await.is_some(), "the last list holds");
    let admin = Admin::new();
    admin.listen(&server, url.strip_prefix("http://").unwrap()).await;
    one.cut().await;
    relay.until(VerifyStats::is_following).await;
    assert!(relay.join(1).await.is_none() && relay.relay.is_connected(&key(2)));
}

#[tokio::test]
async fn a_stream_ends_with_its_api_key() {
    let (server, _admin, relay, _) = following().await;
    let key = server.store.snapshot().tailnet.api_keys().next().unwrap().id;
    server.expect_alarm("the control server has ended it");
    server.submit(Command::DeleteApiKey { key }).await;
    // The next line finds out.
    register(&server, 1).await;
    relay.until(|stats| !stats.is_following()).await;
    assert!(relay.join(1).await.is_none());
}

#[tokio::test]
async fn without_an_api_key_there_is_no_list() {
    let (server, _admin, relay, url) = following().await;
    server.expect_alarm("the API key is not accepted");
    let api_key = ApiKeySource::new(|| Ok("tskey-api-wrong".to_owned()));
    let stranger = Alone::new(Asks::Control { url, api_key });
    stranger.until(|stats| stats.interruptions.load(Ordering::Relaxed) > 0).await;
    assert!(!stranger.stats.has_list());
    assert!(relay.stats.is_following());
}

#[tokio::test]
async fn the_unix_socket_needs_no_key() {
    let (server, admin, _, _) = following().await;
    register(&server, 1).await;
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let listening = admin.listening(&server, Access::Everybody);
    admin.connections.spawn(listening.run_unix(listener));
    let relay = Alone::new(Asks::ControlSocket(path));
    relay.until(VerifyStats::is_following).await;
    assert!(relay.join(1).await.is_some() && relay.join(2).await.is_none());
}
