//! The session with the control server: register, follow the map stream, tell what has changed about the node.
//!
//! One task. It dials again for as long as the node lives, whatever the server answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_client::{
    ControlClient, DialError, Dialer, MapStream, MapStreamError, RequestError, backoff,
};
use mesh_keys::{DiscoPublic, NodePrivate, NodePublic};
use mesh_wire::{
    CapabilityVersion, DerpRegionId, EndpointType, Hostinfo, MapRequest, MapResponse, NetInfo,
    RegisterAuth, RegisterRequest, SecretText,
};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::host::wall_clock;
use crate::state::{NodeState, StateStore};

/// What this client understands.
const VERSION: CapabilityVersion = CapabilityVersion::CURRENT;

/// A stream without a message for so long is given up: only what comes through it proves that it is alive.
const SILENCE_MAX: Duration = Duration::from_mins(2);

/// The longest wait for the answer to a registration that waits for nobody.
const REGISTER_MAX: Duration = Duration::from_mins(1);

/// The longest wait for somebody to log in, after which the server is asked anew.
const FOLLOWUP_MAX: Duration = Duration::from_mins(15);

/// The pause after a refusal. Somebody has to do something first, and who waits for the node is told at once.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// What the engine is told.
#[derive(Debug)]
pub(crate) enum Update {
    /// A session has begun: what follows is told from the beginning.
    Began,
    /// The next message of the session.
    Message(Box<MapResponse>),
}

/// How far the node has come with the control server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It has not been answered yet, or not since the connection broke.
    #[default]
    Starting,
    /// Somebody has to log in at this URL.
    NeedsLogin(String),
    /// Somebody has to approve the machine.
    NeedsMachineAuth,
    /// The server refuses the node, in its own words.
    Refused(String),
    /// A session is open.
    Connected,
}

/// What the node finds out about itself and the server is told.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Report {
    pub(crate) endpoints: Vec<(SocketAddr, EndpointType)>,
    pub(crate) home: DerpRegionId,
    /// Round trips in seconds, by `<region>-v4` or `<region>-v6`.
    pub(crate) latencies: BTreeMap<String, f64>,
}

/// Why a session ended.
#[derive(Debug, Error)]
enum SessionError {
    #[error("cannot reach the control server")]
    Dial(#[from] DialError),
    #[error("control server refuses: {0}")]
    Refused(String),
    #[error("request to the control server failed")]
    Request(#[from] RequestError),
    #[error("map stream failed")]
    Stream(#[from] MapStreamError),
    #[error("map stream was silent for {} s", SILENCE_MAX.as_secs())]
    Silence,
    #[error("control server does not answer a registration")]
    NoAnswer,
    #[error("control server ended the map stream")]
    Ended,
    #[error("control server says that the node's key has expired")]
    Expired,
    #[error("node is being closed")]
    Closed,
    #[error("new key cannot be kept")]
    State(#[from] crate::StateError),
}

/// What a session needs, told when the node is built.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) dialer: Dialer,
    pub(crate) hostinfo: Hostinfo,
    pub(crate) auth_key: String,
    pub(crate) ephemeral: bool,
    pub(crate) disco: DiscoPublic,
}

/// The task.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) identity: Identity,
    pub(crate) state: NodeState,
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) updates: mpsc::Sender<Update>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) report: watch::Receiver<Report>,
    /// The node key in use, which the engine must know before the server does.
    pub(crate) key: watch::Sender<NodePrivate>,
}

impl Control {
    /// Keeps up sessions until the engine is gone.
    pub(crate) async fn run(mut self) {
        let mut failures = 0;
        loop {
            let error = match self.session(&mut failures).await {
                Err(SessionError::Closed) => return,
                Err(error) => error,
                Ok(never) => match never {},
            };
            failures += 1;
            let pause = pause_after(&error, failures);
            self.phase.send_if_modified(|phase| {
                let was_connected = *phase == Phase::Connected;
                if was_connected {
                    *phase = Phase::Starting;
                }
                was_connected
            });
            info!(
                error = &error as &dyn std::error::Error,
                pause_ms = pause.as_millis(),
                "session with the control server ended"
            );
            sleep(pause).await;
        }
    }

    async fn session(
        &mut self,
        failures: &mut u32,
    ) -> Result<std::convert::Infallible, SessionError> {
        let identity = &self.identity;
        let client = ControlClient::connect(&identity.dialer, &self.state.machine, VERSION).await?;
        if !self.state.is_registered {
            self.register(&client).await?;
        }
        let stream = timeout(SILENCE_MAX, client.map_stream(&self.map_request())).await;
        let stream = match stream.map_err(|_| SessionError::Silence)? {
            Err(RequestError::Status { status, message, retry_after })
                if status.as_u16() == 401 || status.as_u16() == 404 =>
            {
                // The server does not know the node any more: it has to register again.
                self.state.is_registered = false;
                return Err(RequestError::Status { status, message, retry_after }.into());
            }
            stream => stream?,
        };
        self.updates.send(Update::Began).await.map_err(|_| SessionError::Closed)?;
        let end = tokio::select! {
            biased;
            end = self.follow(stream, failures) => end,
            end = self.tell(&client) => end,
        };
        if matches!(end, Err(SessionError::Expired)) {
            self.state.is_registered = false;
        }
        end
    }

    /// Registers, and waits for whoever has to agree.
    async fn register(&mut self, client: &ControlClient) -> Result<(), SessionError> {
        let mut followup = String::new();
        let mut old_key = NodePublic::default();
        loop {
            let wait = if followup.is_empty() { REGISTER_MAX } else { FOLLOWUP_MAX };
            let request = self.register_request(old_key, std::mem::take(&mut followup));
            let answer = timeout(wait, client.register(&request)).await;
            let answer = answer.map_err(|_| SessionError::NoAnswer)??;
            if !answer.error.is_empty() {
                self.phase.send_replace(Phase::Refused(answer.error.clone()));
                return Err(SessionError::Refused(answer.error));
            }
            if answer.node_key_expired {
                old_key = self.state.node.public();
                self.state.node = NodePrivate::generate().map_err(crate::StateError::Random)?;
                self.state.save(&*self.store)?;
                self.key.send_replace(self.state.node.clone());
            } else if !answer.auth_url.is_empty() {
                warn!(url = %answer.auth_url, "somebody has to log in");
                self.phase.send_replace(Phase::NeedsLogin(answer.auth_url.clone()));
                followup = answer.auth_url;
            } else if answer.machine_authorized {
                self.state.is_registered = true;
                return Ok(self.state.save(&*self.store)?);
            } else {
                self.phase.send_replace(Phase::NeedsMachineAuth);
                return Err(SessionError::Refused("machine is not approved yet".to_owned()));
            }
        }
    }

    /// Hands on what the server says, until the stream ends.
    async fn follow(
        &self,
        mut stream: MapStream,
        failures: &mut u32,
    ) -> Result<std::convert::Infallible, SessionError> {
        loop {
            let message = timeout(SILENCE_MAX, stream.next()).await;
            let message =
                message.map_err(|_| SessionError::Silence)??.ok_or(SessionError::Ended)?;
            // So a server tells a node that it was deleted, too. It counts as a failure: whoever takes the key again and calls it
            // expired again, as a wrong clock does, is not asked without end.
            let expiry = message.node.as_ref().and_then(|node| node.key_expiry);
            if expiry.is_some_and(|expiry| expiry <= wall_clock()) {
                return Err(SessionError::Expired);
            }
            *failures = 0;
            self.phase.send_if_modified(|phase| {
                *phase != Phase::Connected && {
                    *phase = Phase::Connected;
                    true
                }
            });
            let update = Update::Message(Box::new(message));
            self.updates.send(update).await.map_err(|_| SessionError::Closed)?;
        }
    }

    /// Tells the server what the node knows of itself, whenever that has changed.
    async fn tell(&self, client: &ControlClient) -> Result<std::convert::Infallible, SessionError> {
        let mut reports = self.report.clone();
        loop {
            let request = self.lite_update(&reports.borrow_and_update());
            debug!(endpoints = request.endpoints.len(), "telling the control server of the node");
            client.lite_update(&request).await?;
            reports.changed().await.map_err(|_| SessionError::Closed)?;
        }
    }

    fn register_request(&self, old_node_key: NodePublic, followup: String) -> RegisterRequest {
        let auth_key = &self.identity.auth_key;
        let auth =
            (!auth_key.is_empty()).then(|| RegisterAuth { auth_key: SecretText(auth_key.clone()) });
        RegisterRequest {
            version: VERSION,
            node_key: self.state.node.public(),
            old_node_key,
            auth,
            followup,
            hostinfo: Some(Box::new(self.identity.hostinfo.clone())),
            ephemeral: self.identity.ephemeral,
            ..RegisterRequest::default()
        }
    }

    fn map_request(&self) -> MapRequest {
        MapRequest {
            version: VERSION,
            compress: "zstd".to_owned(),
            keep_alive: true,
            node_key: self.state.node.public(),
            disco_key: self.identity.disco,
            stream: true,
            hostinfo: Some(Box::new(self.identity.hostinfo.clone())),
            ..MapRequest::default()
        }
    }

    fn lite_update(&self, report: &Report) -> MapRequest {
        let net_info = NetInfo {
            working_udp: Some(!report.latencies.is_empty()),
            preferred_derp: report.home,
            derp_latency: report.latencies.clone(),
            ..NetInfo::default()
        };
        let hostinfo = Hostinfo { net_info: Some(net_info), ..self.identity.hostinfo.clone() };
        let (endpoints, endpoint_types) = report.endpoints.iter().copied().unzip();
        MapRequest {
            hostinfo: Some(Box::new(hostinfo)),
            stream: false,
            omit_peers: true,
            endpoints,
            endpoint_types,
            ..self.map_request()
        }
    }
}

fn pause_after(error: &SessionError, failures: u32) -> Duration {
    let asked = match error {
        SessionError::Refused(_) => Some(REFUSED_PAUSE),
        SessionError::Request(error) | SessionError::Dial(DialError::Request(error)) => {
            error.retry_after()
        }
        SessionError::Dial(_)
        | SessionError::Stream(_)
        | SessionError::Silence
        | SessionError::NoAnswer
        | SessionError::Ended
        | SessionError::Expired
        | SessionError::Closed
        | SessionError::State(_) => None,
    };
    asked.unwrap_or_else(|| backoff(failures, getrandom::u32().unwrap_or_default()))
}
