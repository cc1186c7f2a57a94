//! Who keeps up sessions: registers the node, opens its stream, tries again, and does what programs ask for in between.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mesh_client::{ControlClient, DialError, RequestError, backoff};
use mesh_keys::{NodePrivate, NodePublic};
use mesh_wire::RegisterRequest;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::answers::Answers;
use super::login::{self, Login};
use super::stream::Line;
use super::{Command, Control, Phase, SessionError, Update, VERSION};
use crate::node::NodeError;
use crate::state::{NodeState, StateError, StateStore};

/// The pause after a refusal. Somebody has to do something first, and who waits for the node is told at once.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);

/// The longest pause that a server may ask for.
const ASKED_PAUSE_MAX: Duration = Duration::from_hours(1);

/// A session that lasted so long was a good one: only shorter ones make the pauses between them grow.
const SESSION_MIN: Duration = Duration::from_secs(10);

/// The longest that telling the server of a logout may take.
const LOGOUT_MAX: Duration = Duration::from_secs(15);

/// When a key shall have expired for its node to be logged out: any time that is long past does, stock clients send this one.
const LOGOUT_EXPIRY: Timestamp = Timestamp::constant(123, 0);

/// The task at work.
#[derive(Debug)]
pub(super) struct Keeper {
    line: Line,
    state: NodeState,
    store: Arc<dyn StateStore>,
    key: watch::Sender<NodePrivate>,
    /// The login under way: a first one, or while the key in use is still good, one that shall replace it.
    login: Option<Login>,
    /// Who waits for it to end.
    waiting: Vec<oneshot::Sender<Result<(), NodeError>>>,
    answers: Answers,
    /// Sessions in a row that were too short.
    failures: u32,
    is_logged_out: bool,
}

impl Keeper {
    /// A keeper that has not begun, and what programs want of it.
    pub(super) fn new(control: Control) -> (Self, mpsc::Receiver<Command>) {
        let Control { identity, updates, phase, report, .. } = control;
        let mut keeper = Self {
            line: Line { identity, updates, phase, report },
            state: control.state,
            store: control.store,
            key: control.key,
            login: None,
            waiting: Vec::new(),
            answers: Answers::new(control.pinger),
            failures: 0,
            is_logged_out: false,
        };
        if control.force_login
            && keeper.state.is_registered
            && let Err(error) = keeper.abandon_key()
        {
            let error = &error as &dyn std::error::Error;
            warn!(error, "node logs in with the key that it has");
        }
        (keeper, control.commands)
    }

    /// Keeps up sessions until the engine is gone. Safe to cancel.
    pub(super) async fn keep_up(&mut self) {
        if self.is_logged_out {
            return std::future::pending().await;
        }
        loop {
            let Err(error) = self.session().await;
            if matches!(error, SessionError::Closed) {
                return;
            }
            self.failures += 1;
            let pause = pause_after(&error, self.failures);
            self.leave_phase(|phase| *phase == Phase::Connected);
            info!(
                error = &error as &dyn std::error::Error,
                pause_ms = pause.as_millis(),
                "session with the control server ended"
            );
            sleep(pause).await;
        }
    }

    async fn session(&mut self) -> Result<Infallible, SessionError> {
        let dialer = &self.line.identity.dialer;
        let client = ControlClient::connect(dialer, &self.state.machine, VERSION).await?;
        if !self.state.is_registered {
            self.log_in(&client).await?;
        }
        let key = self.state.node.public();
        let stream = match self.line.open(&client, key).await {
            Err(error) if is_unknown_node(&error) => {
                self.state.is_registered = false;
                return Err(error);
            }
            stream => stream?,
        };
        let opened_at = Instant::now();
        let Self { line, login, answers, .. } = self;
        let Err(end) = tokio::select! {
            biased;
            end = line.follow(stream, &client, answers) => end,
            end = line.tell(&client, key) => end,
            end = renew(login.as_mut(), &client, line) => end,
        };
        if opened_at.elapsed() >= SESSION_MIN {
            self.failures = 0;
        }
        if matches!(end, SessionError::Expired) {
            self.expire()?;
        } else if matches!(end, SessionError::Renewed) {
            self.take_key()?;
        } else if let SessionError::NotRenewed(error) = &end {
            self.end_login(&Err(error.clone()));
        }
        Err(end)
    }

    /// Registers the node, and waits for whoever has to agree.
    async fn log_in(&mut self, client: &ControlClient) -> Result<(), SessionError> {
        let Self { line, login, state, .. } = self;
        let login = login.get_or_insert_with(|| Login::with(state.node.clone()));
        let result = login.run(client, &line.identity, |url| line.note_login(url)).await;
        match &result {
            Ok(()) => self.take_key()?,
            Err(SessionError::Refused(error)) => {
                self.end_login(&Err(error.clone()));
                self.line.phase.send_replace(Phase::Refused(error.clone()));
            }
            Err(SessionError::NotApproved) => {
                self.line.phase.send_replace(Phase::NeedsMachineAuth);
            }
            Err(_) => {}
        }
        result
    }

    /// Takes the key of the login that has come through into use.
    fn take_key(&mut self) -> Result<(), StateError> {
        let Some(login) = &self.login else { return Ok(()) };
        self.state.node = login.key.clone();
        self.state.is_registered = true;
        self.tell_key();
        self.end_login(&Ok(()));
        self.state.save(&*self.store)
    }

    /// Has the engine take the key into use, if it does not use it already.
    fn tell_key(&self) {
        self.key.send_if_modified(|key| {
            let is_new = *key != self.state.node;
            if is_new {
                key.clone_from(&self.state.node);
            }
            is_new
        });
    }

    /// Forgets the login under way, and tells who waits for it what came of it, in the server's words.
    fn end_login(&mut self, result: &Result<(), String>) {
        self.login = None;
        self.leave_phase(|phase| matches!(phase, Phase::NeedsLogin(_)));
        for waiting in self.waiting.drain(..) {
            // Who does not wait any more does not want to know.
            waiting.send(result.clone().map_err(NodeError::Refused)).ok();
        }
    }

    /// Goes back to the first phase from those that are over.
    fn leave_phase(&self, is_over: impl Fn(&Phase) -> bool) {
        self.line.phase.send_if_modified(|phase| {
            let is_over = is_over(phase);
            if is_over {
                *phase = Phase::Starting;
            }
            is_over
        });
    }

    pub(super) async fn handle_command(&mut self, command: Command) {
        self.failures = 0;
        match command {
            Command::Reauthenticate(answer) => self.reauthenticate(answer),
            Command::Logout(answer) => {
                let result = self.log_out().await;
                answer.send(result).ok();
            }
        }
    }

    /// Begins a login with a new key, unless one is under way. The key in use stays in use until the server has taken the other.
    fn reauthenticate(&mut self, answer: oneshot::Sender<Result<(), NodeError>>) {
        if self.login.is_none() && self.state.is_registered {
            match Login::renewing(&self.state.node) {
                Ok(login) => self.login = Some(login),
                Err(error) => return drop(answer.send(Err(error.into()))),
            }
        }
        self.login.iter_mut().for_each(Login::allow_auth_key);
        self.is_logged_out = false;
        self.leave_phase(|phase| *phase == Phase::LoggedOut);
        self.waiting.retain(|waiting| !waiting.is_closed());
        self.waiting.push(answer);
    }

    /// Has the next session register a new key before anything else: the one in use is good for nothing.
    fn abandon_key(&mut self) -> Result<(), StateError> {
        if self.login.is_none() {
            self.login = Some(Login::renewing(&self.state.node)?);
        }
        self.state.is_registered = false;
        Ok(())
    }

    /// Has somebody log in, as stock clients do: a server tells a node in the same way that it was deleted, and that must hold
    /// until a program asks for a login, or is started again.
    fn expire(&mut self) -> Result<(), StateError> {
        if self.login.is_none() {
            self.login = Some(Login::renewing(&self.state.node)?.without_auth_key());
        }
        self.state.is_registered = false;
        self.state.save(&*self.store)
    }

    /// Leaves the tailnet. The key is forgotten even if the server cannot be told, as with stock clients: it then has to find out
    /// by itself that the node is gone.
    async fn log_out(&mut self) -> Result<(), NodeError> {
        let told = if self.may_be_known() {
            timeout(LOGOUT_MAX, self.tell_logout()).await.unwrap_or(Err(SessionError::NoAnswer))
        } else {
            Ok(())
        };
        self.end_login(&Err("node was logged out".to_owned()));
        self.is_logged_out = true;
        self.line.phase.send_replace(Phase::LoggedOut);
        // Without an engine there is nothing to forget.
        self.line.update(Update::LoggedOut).await.ok();
        self.state.node = NodePrivate::generate().map_err(StateError::from)?;
        self.state.is_registered = false;
        self.tell_key();
        self.state.save(&*self.store)?;
        told.map_err(|error| NodeError::NotTold(error.into()))
    }

    /// Whether the server may know the key in use.
    fn may_be_known(&self) -> bool {
        self.state.is_registered || self.login.as_ref().is_some_and(Login::is_renewal)
    }

    async fn tell_logout(&self) -> Result<(), SessionError> {
        let identity = &self.line.identity;
        let client = ControlClient::connect(&identity.dialer, &self.state.machine, VERSION).await?;
        let (key, no_key) = (self.state.node.public(), NodePublic::default());
        let request = RegisterRequest {
            expiry: Some(LOGOUT_EXPIRY),
            ..login::register_request(key, no_key, "", identity)
        };
        let answer = login::register(&client, &request).await?;
        if answer.error.is_empty() { Ok(()) } else { Err(SessionError::Refused(answer.error)) }
    }
}

/// Registers the key that shall replace the one in use, if there is one.
async fn renew(
    login: Option<&mut Login>,
    client: &ControlClient,
    line: &Line,
) -> Result<Infallible, SessionError> {
    let Some(login) = login else { return std::future::pending().await };
    match login.run(client, &line.identity, |url| line.note_login(url)).await {
        Ok(()) => Err(SessionError::Renewed),
        Err(SessionError::Refused(error)) => Err(SessionError::NotRenewed(error)),
        Err(error) => Err(error),
    }
}

/// Whether the server does not know the node any more, which then has to register again.
fn is_unknown_node(error: &SessionError) -> bool {
    let SessionError::Request(RequestError::Status { status, .. }) = error else { return false };
    matches!(status.as_u16(), 401 | 404)
}

pub(super) fn pause_after(error: &SessionError, failures: u32) -> Duration {
    let asked = match error {
        SessionError::Renewed | SessionError::NotRenewed(_) => Some(Duration::ZERO),
        SessionError::Refused(_) | SessionError::NotApproved => Some(REFUSED_PAUSE),
        SessionError::Request(error) | SessionError::Dial(DialError::Request(error)) => {
            error.retry_after().filter(|pause| *pause <= ASKED_PAUSE_MAX)
        }
        SessionError::Dial(_)
        | SessionError::Stream(_)
        | SessionError::Silence
        | SessionError::NoNode
        | SessionError::NoAnswer
        | SessionError::Ended
        | SessionError::Expired
        | SessionError::Closed
        | SessionError::State(_) => None,
    };
    asked.unwrap_or_else(|| backoff(failures, getrandom::u32().unwrap_or_default()))
}
