//! Who may use the admin API.

use std::net::{IpAddr, Ipv4Addr};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use jiff::SignedDuration;
use mesh_model::{ApiKeyId, Timestamp};
use mesh_state::Command;

use super::{AppState, Problem};
use crate::secrets::VerifyError;

/// An API key's last use is not told to the store more often: each word of it publishes an epoch.
const LAST_SEEN_STEP: SignedDuration = SignedDuration::from_mins(1);

/// How a listener knows an admin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// By nothing: whoever reaches it is one, as on the unix socket.
    Everybody,
    /// By an API key in the `Authorization` header.
    ApiKeys,
}

/// Where a request comes from, proxies that we trust left aside. The listener puts it into the request's
/// extensions; requests without it count as from one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source(pub IpAddr);

impl Source {
    const UNKNOWN: Self = Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
}

/// Who asks, as it is recorded of what they write: the public id of an API key, or `cli` on the unix socket.
#[derive(Debug, Clone)]
pub(super) struct Author(pub(super) String);

impl Author {
    fn on_the_socket() -> Self {
        Self("cli".to_owned())
    }
}

/// Lets a request pass, or answers it with 401, or with 429 after too many failed attempts.
pub(super) async fn check(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let author = match state.access {
        Access::Everybody => Author::on_the_socket(),
        Access::ApiKeys => {
            let source = request.extensions().get().copied().unwrap_or(Source::UNKNOWN);
            authorize(&state, source, request.headers()).await?
        }
    };
    request.extensions_mut().insert(author);
    Ok(next.run(request).await)
}

async fn authorize(
    state: &AppState,
    source: Source,
    headers: &HeaderMap,
) -> Result<Author, Problem> {
    let presented = bearer(headers).ok_or_else(|| {
        Problem::unauthorized("an API key is needed: `Authorization: Bearer tskey-api-...`")
    })?;
    let id = verify(state, source, presented).await?;
    let (snapshot, now) = (state.store.snapshot(), state.clock.now());
    let key = snapshot.tailnet.api_key(id).filter(|key| key.is_valid(now));
    let key = key.ok_or_else(|| Problem::unauthorized("the API key has expired or was deleted"))?;
    let is_stale = |last_seen_at: Timestamp| now.duration_since(last_seen_at) >= LAST_SEEN_STEP;
    if key.last_seen_at.is_none_or(is_stale) {
        state.store.submit_soft(Command::TouchApiKey { key: id });
    }
    Ok(Author(key.public_id.clone()))
}

/// Keys that were verified before pass also when their source has used up its attempts, so that nobody
/// shuts out an admin who comes through the same proxy.
async fn verify(state: &AppState, source: Source, presented: &str) -> Result<ApiKeyId, Problem> {
    let snapshot = state.store.snapshot();
    if let Some(wait) = state.attempts.wait(source.0) {
        return state
            .verifier
            .recall_api(presented, &snapshot)
            .ok_or_else(|| Problem::too_many("too many wrong API keys: wait a minute", wait));
    }
    state.verifier.verify_api(presented, &snapshot).await.map_err(|error| {
        state.attempts.record(source.0, error);
        tracing::info!(%error, "refused an API key");
        match error {
            VerifyError::Busy => Problem::busy(error.to_string()),
            VerifyError::Malformed | VerifyError::UnknownKey | VerifyError::WrongSecret => {
                Problem::unauthorized("the API key is not valid: `meshcontrol apikeys create` on the server makes one")
            }
        }
    })
}

/// The credential of an `Authorization: Bearer` header; the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, credential) =
        headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim())
}
