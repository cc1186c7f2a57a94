//! `/apikey`: keys that open this API.

use std::fmt;

use axum::Json;
use axum::extract::State;
use mesh_model::{ApiKeyId, Tailnet, Timestamp};
use mesh_state::{Command, Outcome, Refusal};
use serde::{Deserialize, Serialize};

use super::Done;
use crate::api::extract::{Body, Path, Query, optional_instant, optional_text};
use crate::api::{AppState, Problem};
use crate::secrets::KeyKind;

/// An API key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// Decimal.
    pub id: String,
    /// `tskey-api-<public id>-***`.
    pub prefix: String,
    /// From when on it opens nothing; `null` is never.
    pub expiration: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    pub last_seen: Option<Timestamp>,
}

impl ApiKey {
    fn new(key: &mesh_model::ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            prefix: KeyKind::Api.masked(&key.public_id),
            expiration: key.expires_at,
            created_at: key.created_at,
            last_seen: key.last_seen_at,
        }
    }
}

/// The whole text of an API key that was just made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MintedApiKey {
    /// To be shown once.
    pub api_key: String,
}

impl fmt::Debug for MintedApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MintedApiKey(redacted)")
    }
}

/// API keys, by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyList {
    /// All of them.
    pub api_keys: Vec<ApiKey>,
}

/// `GET /apikey`.
pub(super) async fn list(State(state): State<AppState>) -> Json<ApiKeyList> {
    let snapshot = state.store.snapshot();
    let api_keys = snapshot.tailnet.api_keys().map(|key| ApiKey::new(key)).collect();
    Json(ApiKeyList { api_keys })
}

#[derive(Debug, Deserialize)]
pub(super) struct Create {
    #[serde(default, deserialize_with = "optional_instant")]
    expiration: Option<Timestamp>,
}

/// `POST /apikey`. Without an expiration the key does not expire.
pub(super) async fn create(
    State(state): State<AppState>,
    Body(new): Body<Create>,
) -> Result<Json<MintedApiKey>, Problem> {
    let minted = state.verifier.mint(KeyKind::Api).await?;
    let command = Command::CreateApiKey { secret: minted.secret, expires_at: new.expiration };
    let Outcome::ApiKey(_) = state.store.submit(command).await? else {
        return Err(Problem::unexpected_outcome());
    };
    Ok(Json(MintedApiKey { api_key: minted.text }))
}

/// Names a key by its id or by its prefix, masked or bare.
#[derive(Debug, Deserialize)]
pub(super) struct Named {
    #[serde(default, deserialize_with = "optional_text")]
    id: Option<String>,
    #[serde(default, deserialize_with = "optional_text")]
    prefix: Option<String>,
}

impl Named {
    fn find(&self, tailnet: &Tailnet) -> Result<ApiKeyId, Problem> {
        // Clients that have no id to give give `0`.
        let id = self.id.as_deref().filter(|id| *id != "0");
        let found = match (id, &self.prefix) {
            (Some(id), None) => {
                let wrong = || format!("`{id:.40}` is not an API key's id");
                tailnet.api_key(id.parse().map_err(|_| Problem::bad_request(wrong()))?)
            }
            (None, Some(prefix)) => tailnet.api_key_by_public_id(KeyKind::Api.unmask(prefix)),
            (None, None) | (Some(_), Some(_)) => {
                return Err(Problem::bad_request("give either `id` or `prefix`"));
            }
        };
        Ok(found.ok_or(Refusal::ApiKeyNotFound)?.id)
    }
}

/// `POST /apikey/expire`.
pub(super) async fn expire(
    State(state): State<AppState>,
    Body(named): Body<Named>,
) -> Result<Json<Done>, Problem> {
    let key = named.find(&state.store.snapshot().tailnet)?;
    state.store.submit(Command::ExpireApiKey { key }).await?;
    Ok(Json(Done {}))
}

/// `DELETE /apikey?id=` or `?prefix=`.
pub(super) async fn delete(
    State(state): State<AppState>,
    Query(named): Query<Named>,
) -> Result<Json<Done>, Problem> {
    let key = named.find(&state.store.snapshot().tailnet)?;
    state.store.submit(Command::DeleteApiKey { key }).await?;
    Ok(Json(Done {}))
}

/// `DELETE /apikey/{prefix}`.
pub(super) async fn delete_by_prefix(
    state: State<AppState>,
    Path(prefix): Path<String>,
    Query(named): Query<Named>,
) -> Result<Json<Done>, Problem> {
    delete(state, Query(Named { prefix: Some(prefix), ..named })).await
}
