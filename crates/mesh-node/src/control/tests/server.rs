//! A control server whose answers a test gives one by one, and what it runs against: the session's task without an engine.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::poll_fn;
use http::{Method, Response, StatusCode};
use jiff::Timestamp;
use mesh_keys::DiscoPublic;
use mesh_stack::{Config, Stack};
use mesh_testkit::control_server::{self, Body, ControlServer, encode, whole};
use mesh_wire::{MapRequest, MapResponse, RegisterRequest, RegisterResponse};
use rustls::RootCertStore;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::super::*;
use crate::engine::Request;
use crate::state::MemoryStore;

/// Nothing on loopback takes so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request, inside the channel or for a sign of life outside of it, which waits for its answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// With its query.
    pub(super) path: String,
    pub(super) body: Bytes,
    /// Whether it came through the Noise channel.
    pub(super) is_inside: bool,
    answer: oneshot::Sender<Response<Body>>,
}

impl Asked {
    pub(super) fn read<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).expect("a request")
    }

    /// Answers, if somebody still waits: a session that has ended does not.
    pub(super) fn answer(self, status: u16, body: impl Into<Bytes>) {
        let mut answer = whole(body);
        *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
        self.answer.send(answer).ok();
    }

    pub(super) fn answer_register(self, answer: &RegisterResponse) {
        assert_eq!(self.path, "/machine/register");
        self.answer(200, serde_json::to_vec(answer).expect("JSON"));
    }

    /// Begins an answer that goes on.
    fn stream(self) -> Stream {
        let (pieces, mut sent) = mpsc::channel(64);
        let answer = control_server::stream(poll_fn(move |context| sent.poll_recv(context)));
        self.answer.send(answer).ok();
        Stream(pieces)
    }
}

/// An open map stream.
#[derive(Debug)]
pub(super) struct Stream(mpsc::Sender<Bytes>);

impl Stream {
    pub(super) fn send(&self, message: &MapResponse) {
        self.0.try_send(encode(message)).expect("room for a message");
    }

    /// Whether the client has hung up.
    pub(super) async fn closed(&self) {
        timeout(PATIENCE, self.0.closed()).await.expect("the end of the stream");
    }

    pub(super) fn is_open(&self) -> bool {
        !self.0.is_closed()
    }
}

/// The server, and the task that runs against it.
#[derive(Debug)]
pub(super) struct Lab {
    asked: mpsc::Receiver<Asked>,
    server: ControlServer,
    pub(super) updates: mpsc::Receiver<Update>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) report: watch::Sender<Report>,
    pub(super) key: watch::Receiver<NodePrivate>,
    pub(super) store: Arc<MemoryStore>,
    commands: mpsc::Sender<Command>,
    _control: tokio_util::task::AbortOnDropHandle<()>,
}

/// How a test begins.
#[derive(Debug, Default)]
pub(super) struct Setup {
    pub(super) auth_key: &'static str,
    pub(super) is_registered: bool,
    pub(super) force_login: bool,
}

impl Lab {
    pub(super) async fn new(setup: Setup) -> Self {
        let (asking, asked) = mpsc::channel(64);
        let server = ControlServer::spawn(move |request| ask(request, asking.clone()));
        let server = server.await.expect("a server");
        let store = Arc::new(MemoryStore::default());
        let mut state = NodeState::load_or_make(&*store).expect("a state");
        state.is_registered = setup.is_registered;
        state.save(&*store).expect("saved");
        let identity = Identity {
            dialer: Dialer::new(server.url().parse().expect("a URL"), RootCertStore::empty()),
            hostinfo: Hostinfo::default(),
            auth_key: SecretText(setup.auth_key.to_owned()),
            ephemeral: false,
            disco: DiscoPublic::from_bytes([4; 32]),
        };
        let (update_sender, updates) = mpsc::channel(64);
        let (phase_sender, phase) = watch::channel(Phase::default());
        let (report, report_receiver) = watch::channel(Report::default());
        let (key_sender, key) = watch::channel(state.node.clone());
        let (commands, command_receiver) = mpsc::channel(4);
        let (request_sender, requests) = mpsc::channel(4);
        let (stack, _) = Stack::new(&Config::default()).expect("a stack");
        let control = Control {
            identity,
            state,
            store: store.clone(),
            updates: update_sender,
            phase: phase_sender,
            report: report_receiver,
            key: key_sender,
            commands: command_receiver,
            force_login: setup.force_login,
            pinger: Pinger { stack, requests: request_sender },
        };
        let control = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(control.run()));
        Self {
            asked,
            server,
            updates,
            requests,
            phase,
            report,
            key,
            store,
            commands,
            _control: control,
        }
    }

    /// A node that is registered, with its stream open and the node itself told.
    pub(super) async fn connected(setup: Setup) -> (Self, Stream) {
        let mut lab = Self::new(Setup { is_registered: true, ..setup }).await;
        let stream = lab.open_stream().await;
        (lab, stream)
    }

    /// The next request, lite updates left out: those are taken in.
    pub(super) async fn next(&mut self) -> Asked {
        loop {
            let asked = self.next_of_all().await;
            let is_map = asked.path == "/machine/map";
            if !is_map || asked.read::<MapRequest>().stream {
                return asked;
            }
            asked.answer(200, "");
        }
    }

    pub(super) async fn next_of_all(&mut self) -> Asked {
        let asked = timeout(PATIENCE, self.asked.recv()).await;
        asked.expect("a request in time").expect("a request")
    }

    pub(super) async fn next_register(&mut self) -> (Asked, RegisterRequest) {
        let asked = self.next().await;
        assert_eq!(asked.path, "/machine/register");
        let request = asked.read();
        (asked, request)
    }

    /// Answers the next request, which opens a map stream, with a message of the node itself.
    pub(super) async fn open_stream(&mut self) -> Stream {
        let (stream, request) = self.open_empty_stream().await;
        assert_eq!(request.node_key, self.key.borrow().public());
        stream.send(&node_message(None));
        self.wait_for_phase(Phase::Connected).await;
        stream
    }

    pub(super) async fn open_empty_stream(&mut self) -> (Stream, MapRequest) {
        let asked = self.next().await;
        assert_eq!(asked.path, "/machine/map");
        let request = asked.read();
        (asked.stream(), request)
    }

    pub(super) async fn wait_for_phase(&self, expected: Phase) {
        let mut phase = self.phase.clone();
        let reached = timeout(PATIENCE, phase.wait_for(|phase| *phase == expected)).await;
        assert!(reached.is_ok(), "{expected:?} is not reached: {:?}", self.phase.borrow());
    }

    /// What the engine is told next.
    pub(super) async fn next_update(&mut self) -> Update {
        let update = timeout(PATIENCE, self.updates.recv()).await;
        update.expect("an update in time").expect("an update")
    }

    pub(super) async fn order(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<(), NodeError>>) -> Command,
    ) -> Answer {
        let (sender, answer) = oneshot::channel();
        self.commands.send(command(sender)).await.expect("a running task");
        Answer(answer)
    }

    /// Ends the server and with it every connection.
    pub(super) async fn stop_server(&mut self) {
        self.server.stop().await;
        self.asked.close();
    }

    pub(super) fn stored(&self) -> NodeState {
        NodeState::load_or_make(&*self.store).expect("a state")
    }
}

/// What comes of an order.
#[derive(Debug)]
pub(super) struct Answer(oneshot::Receiver<Result<(), NodeError>>);

impl Answer {
    pub(super) async fn get(self) -> Result<(), NodeError> {
        timeout(PATIENCE, self.0).await.expect("an answer in time").expect("an answer")
    }
}

/// A message that tells a node of itself.
pub(super) fn node_message(key_expiry: Option<Timestamp>) -> MapResponse {
    let node =
        mesh_wire::Node { machine_authorized: true, key_expiry, ..mesh_wire::Node::default() };
    MapResponse { node: Some(Box::new(node)), ..MapResponse::default() }
}

pub(super) fn registered() -> RegisterResponse {
    RegisterResponse { machine_authorized: true, ..RegisterResponse::default() }
}

pub(super) fn needs_login(url: &str) -> RegisterResponse {
    RegisterResponse { auth_url: url.to_owned(), ..RegisterResponse::default() }
}

pub(super) fn expired() -> RegisterResponse {
    RegisterResponse { node_key_expired: true, ..RegisterResponse::default() }
}

pub(super) fn refused(error: &str) -> RegisterResponse {
    RegisterResponse { error: error.to_owned(), ..RegisterResponse::default() }
}

async fn ask(request: http::Request<Bytes>, asking: mpsc::Sender<Asked>) -> control_server::Answer {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().expect("a path").to_string();
    let (answer, answered) = oneshot::channel();
    let is_inside = head.version == http::Version::HTTP_2;
    let asked = Asked { method: head.method, path, body, is_inside, answer };
    asking.send(asked).await.expect("the test listens");
    // A test that drops a request leaves it without an answer for good.
    match answered.await {
        Ok(answer) => Ok(answer),
        Err(_) => std::future::pending().await,
    }
}
