//! The admin API over a store whose database is this process's memory.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod bodies;
mod v1;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header, request};
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use mesh_keys::{MachinePublic, NetworkLockPublic, NodePublic};
use mesh_model::{AuthId, Clock, Hostinfo, Node, PreauthKeyId, TailnetId};
use mesh_netmap::MapContext;
use mesh_server::api::{Access, AppState, PolicyFile, Source, router};
use mesh_server::metrics::Metrics;
use mesh_server::secrets::{Attempts, HashCost, Verifier};
use mesh_state::{Batch, Command, Loaded, Outcome, Registration, Settings, State};
use mesh_store::{Handle, Persist, PersistError, Writer};
use mesh_wire::{DerpMap, DerpRegion, DerpRegionId};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt as _;

/// Longest body that the server under test takes.
pub(super) const BODY_BYTES_MAX: usize = 4096;

/// A server with a turnable clock and a database that can be taken away.
pub(super) struct Server {
    state: AppState,
    clock: Arc<TestClock>,
    database: Arc<Memory>,
    _stop: DropGuard,
}

/// What was answered.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: String,
    pub(super) retry_after: Option<u64>,
    pub(super) etag: Option<String>,
    pub(super) json: Value,
}

fn verifier() -> Arc<Verifier> {
    Arc::new(Verifier::new(HashCost::new(8, 1).unwrap()).unwrap())
}

/// What clients are told: one region, which has no name.
fn context() -> MapContext {
    let id = DerpRegionId(900);
    let region = DerpRegion { region_id: id, ..DerpRegion::default() };
    let derp_map = DerpMap { regions: Some([(id, region)].into()), ..DerpMap::default() };
    MapContext { derp_map: Arc::new(derp_map), ..MapContext::default() }
}

impl Server {
    /// An empty tailnet at 2026-01-01.
    pub(super) fn start() -> Self {
        let clock = Arc::new(TestClock(Mutex::new("2026-01-01T00:00:00Z".parse().unwrap())));
        let database = Arc::new(Memory::default());
        let state = State::new(
            TailnetId(1),
            Loaded::default(),
            Arc::default(),
            Settings::default(),
            clock.now(),
        );
        let (writer, store) = Writer::new(state, database.clone(), clock.clone());
        let stop = CancellationToken::new();
        tokio::spawn(writer.run(stop.clone()));
        let state = AppState {
            store,
            verifier: verifier(),
            attempts: Arc::new(Attempts::new()),
            clock: clock.clone(),
            database: database.clone(),
            policy_file: None,
            access: Access::Everybody,
            metrics: Metrics::default(),
            contexts: watch::channel(Arc::new(context())).1,
            body_bytes_max: BODY_BYTES_MAX,
            stop: stop.clone(),
        };
        Self { state, clock, database, _stop: stop.drop_guard() }
    }

    /// The same server with its policy in a file, and what is to be told of it.
    pub(super) fn with_policy_file(mut self, problem: Option<&str>) -> Self {
        let (sender, problem) = watch::channel(problem.map(str::to_owned));
        drop(sender);
        self.state.policy_file = Some(PolicyFile { path: "/etc/acl.hujson".into(), problem });
        self
    }

    pub(super) fn store(&self) -> &Handle {
        &self.state.store
    }

    /// As after a restart: no key is remembered.
    pub(super) fn forget_keys(&mut self) {
        self.state.verifier = verifier();
    }

    pub(super) fn hashes_computed(&self) -> u64 {
        self.state.verifier.hashes_computed()
    }

    pub(super) fn advance(&self, span: SignedDuration) {
        *self.clock.0.lock().unwrap() += span;
    }

    pub(super) fn take_database_away(&self) {
        self.database.is_away.store(true, Ordering::Relaxed);
    }

    fn router(&self, access: Access) -> Router {
        router(AppState { access, ..self.state.clone() })
    }

    /// Asks on the unix socket.
    pub(super) async fn ask(&self, method: Method, path: &str, body: &str) -> Answer {
        self.ask_with(HeaderMap::new(), method, path, body).await
    }

    /// Asks on the unix socket, with headers.
    pub(super) async fn ask_with(
        &self,
        headers: HeaderMap,
        method: Method,
        path: &str,
        body: &str,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("/api/v1{path}"));
        request.headers_mut().unwrap().extend(headers);
        let request = request.body(Body::from(body.to_owned())).unwrap();
        answer(self.router(Access::Everybody).oneshot(request).await.unwrap()).await
    }

    /// Asks on the public listener for the list of users.
    pub(super) async fn ask_publicly(&self, source: &str, authorization: Option<&str>) -> Answer {
        let request = Request::get("/api/v1/user");
        self.ask_publicly_for(request, "", source, authorization).await
    }

    /// Asks on the public listener.
    pub(super) async fn ask_publicly_for(
        &self,
        mut request: request::Builder,
        body: &str,
        source: &str,
        authorization: Option<&str>,
    ) -> Answer {
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let source: IpAddr = source.parse().unwrap();
        let request = request.extension(Source(source)).body(Body::from(body.to_owned())).unwrap();
        answer(self.router(Access::ApiKeys).oneshot(request).await.unwrap()).await
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        self.expect_ok(Method::GET, path, "").await
    }

    pub(super) async fn post(&self, path: &str, body: &str) -> Value {
        self.expect_ok(Method::POST, path, body).await
    }

    pub(super) async fn delete(&self, path: &str) -> Value {
        self.expect_ok(Method::DELETE, path, "").await
    }

    async fn expect_ok(&self, method: Method, path: &str, body: &str) -> Value {
        let answer = self.ask(method, path, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {:#}", answer.json);
        assert_eq!(answer.content_type, "application/json");
        answer.json
    }

    /// Asks for something that is refused; gives the detail.
    pub(super) async fn refused(
        &self,
        method: Method,
        path: &str,
        body: &str,
        status: u16,
    ) -> String {
        let answer = self.ask(method, path, body).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {body}: {:#}", answer.json);
        assert_eq!(answer.content_type, "application/problem+json");
        assert_eq!(answer.json["status"], status);
        assert_eq!(answer.json["title"], answer.status.canonical_reason().unwrap());
        assert_eq!(answer.json["message"], answer.json["detail"]);
        assert!(answer.json["errors"].is_array());
        answer.json["detail"].as_str().unwrap().to_owned()
    }

    /// A user by that name.
    pub(super) async fn with_user(&self, name: &str) -> String {
        let body = format!(r#"{{"name":"{name}"}}"#);
        self.post("/user", &body).await["user"]["id"].as_str().unwrap().to_owned()
    }

    /// A node that came in by a preauth key of the user.
    pub(super) async fn with_node(&self, hostname: &str, user: &str) -> Arc<Node> {
        let body = format!(r#"{{"user":"{user}"}}"#);
        let key = self.post("/preauthkey", &body).await;
        let key: PreauthKeyId = key["preAuthKey"]["id"].as_str().unwrap().parse().unwrap();
        let Outcome::Registered(node) = self.register(hostname, Some(key)).await else {
            panic!("a valid key registers a node");
        };
        node
    }

    /// A login that waits for an admin.
    pub(super) async fn with_login(&self, hostname: &str) -> AuthId {
        let Outcome::NeedsLogin(auth_id) = self.register(hostname, None).await else {
            panic!("without a key a login starts");
        };
        auth_id
    }

    async fn register(&self, hostname: &str, preauth_key: Option<PreauthKeyId>) -> Outcome {
        let digest = *blake3::hash(hostname.as_bytes()).as_bytes();
        let registration = Registration {
            machine_key: MachinePublic::from_bytes(digest),
            node_key: NodePublic::from_bytes(digest),
            old_node_key: None,
            network_lock_key: NetworkLockPublic::from_bytes([0; 32]),
            preauth_key,
            expiry: None,
            followup: None,
            fresh_auth_id: AuthId::from_random(digest[..20].try_into().unwrap()),
            ephemeral: false,
            hostinfo: Hostinfo {
                hostname: hostname.to_owned(),
                os: "linux".to_owned(),
                os_version: "6.12".to_owned(),
                ipn_version: "1.80.0".to_owned(),
                routable_ips: vec!["10.0.0.0/8".parse().unwrap()],
                ..Hostinfo::default()
            },
            capability_version: 113,
            subnet: None,
        };
        self.store().submit(Command::Register(Box::new(registration))).await.unwrap()
    }
}

async fn answer(response: Response) -> Answer {
    let (parts, body) = response.into_parts();
    let text = |name| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(text(header::CACHE_CONTROL).as_deref(), Some("no-store"));
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Answer {
        status: parts.status,
        content_type: text(header::CONTENT_TYPE).unwrap(),
        etag: text(header::ETAG),
        retry_after: text(header::RETRY_AFTER).map(|seconds| seconds.parse().unwrap()),
        json: serde_json::from_slice(&body).unwrap(),
    }
}

#[derive(Debug)]
struct TestClock(Mutex<Timestamp>);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// A database that keeps nothing: the store does.
#[derive(Debug, Default)]
struct Memory {
    is_away: AtomicBool,
}

impl Memory {
    fn answer(&self) -> Result<(), PersistError> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(PersistError::Unavailable("pulled the plug".into()));
        }
        Ok(())
    }
}

impl Persist for Memory {
    async fn load(&self, _: TailnetId) -> Result<Loaded, PersistError> {
        self.answer().map(|()| Loaded::default())
    }

    async fn commit(&self, _: &Batch) -> Result<(), PersistError> {
        self.answer()
    }

    async fn ping(&self) -> Result<(), PersistError> {
        self.answer()
    }
}
