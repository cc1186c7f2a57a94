//! `POST /machine/register`: joining, coming back, renewing a key, leaving.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use mesh_model::{AuthId, Node, PreauthKeyId};
use mesh_netmap::{wire_login, wire_user};
use mesh_state::{Command, LoginState, Outcome, Refusal, Registration};
use mesh_store::SubmitError;
use mesh_wire::{CapabilityVersion, RegisterRequest, RegisterResponse};
use thiserror::Error;
use tokio::time::Instant;

use super::Channel;
use super::channel::{BodyError, read_json};
use super::from_wire;
use crate::App;
use crate::limits::retry_soon;
use crate::secrets::VerifyError;

/// How long a client that waits for approval is held before it is told to ask again. Idle connections live
/// longer than this in most proxies.
const FOLLOWUP_WAIT: Duration = Duration::from_secs(150);

/// When a client whose network has too many logins waiting may try again, in seconds.
const LOGINS_RETRY_SECONDS: u64 = 60;

/// Why a register request got no business answer. What a person can mend goes into the answer's `Error`.
#[derive(Debug, Error)]
pub(crate) enum RegisterError {
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("{0}")]
    Refused(String),
    #[error("too many requests: try again in {0} s")]
    TooMany(u64),
    #[error("the server cannot take requests now")]
    Unavailable,
}

impl IntoResponse for RegisterError {
    fn into_response(self) -> Response {
        match self {
            Self::Body(error) => error.into_response(),
            Self::Refused(error) => {
                Json(RegisterResponse { error, ..RegisterResponse::default() }).into_response()
            }
            Self::TooMany(seconds) => {
                let retry = [(header::RETRY_AFTER, seconds.to_string())];
                (StatusCode::TOO_MANY_REQUESTS, retry, self.to_string()).into_response()
            }
            Self::Unavailable => {
                let retry = [(header::RETRY_AFTER, retry_soon().to_string())];
                (StatusCode::SERVICE_UNAVAILABLE, retry, self.to_string()).into_response()
            }
        }
    }
}

impl From<SubmitError> for RegisterError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Refused(Refusal::TooManyLogins) => Self::TooMany(LOGINS_RETRY_SECONDS),
            SubmitError::Refused(refusal) => Self::Refused(refusal.to_string()),
            SubmitError::Busy => Self::TooMany(retry_soon()),
            SubmitError::Unavailable(_) | SubmitError::TimedOut | SubmitError::Closed => {
                Self::Unavailable
            }
        }
    }
}

/// Answers a register request; one that follows up on a login waits for its decision.
pub(crate) async fn register(
    State(app): State<App>,
    Extension(channel): Extension<Channel>,
    body: Body,
) -> Result<Json<RegisterResponse>, RegisterError> {
    let request: RegisterRequest = read_json(body, app.bodies.register).await?;
    let since = Instant::now();
    let outcome = outcome(&app, &channel, &request).await;
    app.metrics.registered(method(&request), result(&outcome), since.elapsed());
    Ok(Json(answer(&app, &channel, outcome?)))
}

async fn outcome(
    app: &App,
    channel: &Channel,
    request: &RegisterRequest,
) -> Result<Outcome, RegisterError> {
    check(request)?;
    let preauth_key = verify(app, channel, request).await?;
    let followup = request.followup.rsplit('/').next().and_then(|id| id.parse().ok());
    let registration =
        from_wire::registration(request, channel, preauth_key, followup, fresh_auth_id()?);
    decide(app, registration).await
}

/// How a client tries to come in, as a metric's label.
fn method(request: &RegisterRequest) -> &'static str {
    let has_key = request.auth.as_ref().is_some_and(|auth| !auth.auth_key.0.is_empty());
    match (has_key, request.followup.is_empty()) {
        (_, false) => "followup",
        (true, true) => "authkey",
        (false, true) => "interactive",
    }
}

/// What came of it, as a metric's label.
fn result(outcome: &Result<Outcome, RegisterError>) -> &'static str {
    match outcome {
        Ok(Outcome::Registered(_)) => "registered",
        Ok(Outcome::NeedsLogin(_)) => "needs_login",
        Ok(Outcome::NodeKeyExpired) => "expired",
        Ok(Outcome::LoggedOut) => "logged_out",
        Ok(_) => "other",
        Err(RegisterError::Refused(_)) => "refused",
        Err(RegisterError::TooMany(_)) => "too_many",
        Err(RegisterError::Unavailable) => "unavailable",
        Err(RegisterError::Body(_)) => "malformed",
    }
}

fn check(request: &RegisterRequest) -> Result<(), RegisterError> {
    if request.version < CapabilityVersion::MIN_SUPPORTED {
        let text = "this client is too old: update it to Tailscale 1.80 or newer";
        return Err(RegisterError::Refused(text.to_owned()));
    }
    if request.node_key.is_zero() {
        return Err(BodyError::Malformed("NodeKey is missing".to_owned()).into());
    }
    Ok(())
}

fn fresh_auth_id() -> Result<AuthId, RegisterError> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).map_err(|_| RegisterError::Unavailable)?;
    Ok(AuthId::from_random(bytes))
}

/// Verifies the key that a request presents, unless the node is registered already or leaves: a client sends
/// its key again with every start and at logout, long after the key was used up or deleted.
async fn verify(
    app: &App,
    channel: &Channel,
    request: &RegisterRequest,
) -> Result<Option<PreauthKeyId>, RegisterError> {
    let presented = request.auth.as_ref().map_or("", |auth| auth.auth_key.0.as_str());
    let (snapshot, now) = (app.store.snapshot(), app.clock.now());
    let leaves = request.expiry.is_some_and(|expiry| expiry <= now);
    if presented.is_empty()
        || leaves
        || snapshot.is_registered(channel.machine_key, request.node_key, now)
    {
        return Ok(None);
    }
    // Whoever shares an address with somebody who guesses keys is not turned away with one that is known to be right.
    if let Some(key) = app.verifier.recall_preauth(presented, &snapshot) {
        return Ok(Some(key));
    }
    if let Some(wait) = channel.source.and_then(|source| app.attempts.wait(source)) {
        return Err(RegisterError::TooMany(wait.as_secs().max(1)));
    }
    match app.verifier.verify_preauth(presented, &snapshot).await {
        Ok(key) => Ok(Some(key)),
        Err(VerifyError::Busy) => Err(RegisterError::TooMany(retry_soon())),
        Err(error) => {
            if let Some(source) = channel.source {
                app.attempts.record(source, error);
            }
            tracing::info!(%error, "a register request presented a key that is none of ours");
            Err(RegisterError::Refused(
                "invalid auth key: create one with `meshcontrol preauthkeys create`".to_owned(),
            ))
        }
    }
}

/// Has the state decide; waits while the login that the client follows up on waits.
async fn decide(app: &App, registration: Registration) -> Result<Outcome, RegisterError> {
    let deadline = tokio::time::Instant::now() + FOLLOWUP_WAIT;
    loop {
        let mut epochs = app.store.subscribe();
        let command = Command::Register(Box::new(registration.clone()));
        let outcome = app.store.submit(command).await?;
        let Outcome::NeedsLogin(auth_id) = &outcome else { return Ok(outcome) };
        if registration.followup.as_ref() != Some(auth_id) {
            return Ok(outcome);
        }
        let decided = async {
            while is_waiting(app, auth_id) {
                if epochs.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = decided => {}
            () = app.stop.cancelled() => return Err(RegisterError::Unavailable),
            () = tokio::time::sleep_until(deadline) => return Ok(outcome),
        }
    }
}

fn is_waiting(app: &App, auth_id: &AuthId) -> bool {
    let snapshot = app.store.snapshot();
    snapshot.logins.get(auth_id).is_some_and(|login| login.state == LoginState::Waiting)
}

/// The answer in the form that every client reads: all fields, and authorized only if nothing else is asked.
fn answer(app: &App, channel: &Channel, outcome: Outcome) -> RegisterResponse {
    match outcome {
        Outcome::Registered(node) => registered(app, channel, &node),
        Outcome::NeedsLogin(auth_id) => RegisterResponse {
            auth_url: format!("{}/register/{auth_id}", app.server_url),
            ..RegisterResponse::default()
        },
        Outcome::NodeKeyExpired | Outcome::LoggedOut => {
            RegisterResponse { node_key_expired: true, ..RegisterResponse::default() }
        }
        other @ (Outcome::Connected(_)
        | Outcome::Node(_)
        | Outcome::User(_)
        | Outcome::PreauthKey(_)
        | Outcome::ApiKey(_)
        | Outcome::Policy(_)
        | Outcome::Done) => unreachable!("invariant: registering does not end in {other:?}"),
    }
}

fn registered(app: &App, channel: &Channel, node: &Node) -> RegisterResponse {
    channel.claim();
    tracing::info!(node.id = node.id.0, node.name = node.given_name, "node registered");
    let snapshot = app.store.snapshot();
    RegisterResponse {
        user: wire_user(&snapshot.tailnet, &node.owner),
        login: wire_login(&snapshot.tailnet, &node.owner),
        machine_authorized: true,
        ..RegisterResponse::default()
    }
}
