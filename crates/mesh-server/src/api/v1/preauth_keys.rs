//! `/preauthkey`: keys that register nodes.

use axum::Json;
use axum::extract::State;
use mesh_model::{PreauthKeyId, Tailnet, Timestamp};
use mesh_state::{Command, NewPreauthKey, Outcome};
use serde::{Deserialize, Serialize};

use super::nodes::parse_tags;
use super::{Done, User, find_user};
use crate::api::extract::{Body, Query, optional_instant, optional_text, or_default};
use crate::api::{AppState, Problem};
use crate::secrets::KeyKind;

/// A preauth key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreAuthKey {
    /// Whose nodes it registers; with tags, who made it.
    pub user: Option<User>,
    /// Decimal.
    pub id: String,
    /// `tskey-auth-<public id>-***`; the whole key only in the answer to its creation.
    pub key: String,
    /// Whether it registers more than one node.
    pub reusable: bool,
    /// Whether its nodes are removed when they go away.
    pub ephemeral: bool,
    /// Whether a single-use key was used.
    pub used: bool,
    /// From when on it registers nothing more; `null` is never. An admin who revokes it sets this.
    pub expiration: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Tags of the nodes it registers.
    pub acl_tags: Vec<String>,
}

impl PreAuthKey {
    pub(super) fn new(key: &mesh_model::PreauthKey, tailnet: &Tailnet) -> Self {
        let user = key.user.and_then(|user| tailnet.user(user));
        Self {
            user: user.map(|user| User::new(user)),
            id: key.id.to_string(),
            key: KeyKind::Preauth.masked(&key.public_id),
            reusable: key.reusable,
            ephemeral: key.ephemeral,
            used: key.used_at.is_some(),
            expiration: key.expires_at.into_iter().chain(key.revoked_at).min(),
            created_at: key.created_at,
            acl_tags: key.tags.iter().map(ToString::to_string).collect(),
        }
    }
}

/// One preauth key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreAuthKeyAnswer {
    /// It.
    pub pre_auth_key: PreAuthKey,
}

/// Preauth keys, by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreAuthKeyList {
    /// All that fit.
    pub pre_auth_keys: Vec<PreAuthKey>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Filter {
    #[serde(default, deserialize_with = "optional_text")]
    user: Option<String>,
}

/// `GET /preauthkey`.
pub(super) async fn list(
    State(state): State<AppState>,
    Query(filter): Query<Filter>,
) -> Result<Json<PreAuthKeyList>, Problem> {
    let tailnet = &state.store.snapshot().tailnet;
    let user = filter.user.map(|user| find_user(tailnet, &user)).transpose()?;
    let keys =
        tailnet.preauth_keys().filter(|key| user.is_none_or(|user| key.user == Some(user.id)));
    let pre_auth_keys = keys.map(|key| PreAuthKey::new(key, tailnet)).collect();
    Ok(Json(PreAuthKeyList { pre_auth_keys }))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Create {
    /// `0` is none too.
    #[serde(default, deserialize_with = "optional_text")]
    user: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    reusable: bool,
    #[serde(default, deserialize_with = "or_default")]
    ephemeral: bool,
    #[serde(default, deserialize_with = "optional_instant")]
    expiration: Option<Timestamp>,
    #[serde(default, deserialize_with = "or_default")]
    acl_tags: Vec<String>,
}

/// `POST /preauthkey`. Without an expiration the key does not expire.
pub(super) async fn create(
    State(state): State<AppState>,
    Body(new): Body<Create>,
) -> Result<Json<PreAuthKeyAnswer>, Problem> {
    let tags = parse_tags(&new.acl_tags)?;
    let user = match new.user.filter(|user| user != "0") {
        Some(user) => Some(find_user(&state.store.snapshot().tailnet, &user)?.id),
        None => None,
    };
    let minted = state.verifier.mint(KeyKind::Preauth).await?;
    let command = Command::CreatePreauthKey(NewPreauthKey {
        secret: minted.secret,
        user,
        tags,
        reusable: new.reusable,
        ephemeral: new.ephemeral,
        expires_at: new.expiration,
    });
    let Outcome::PreauthKey(key) = state.store.submit(command).await? else {
        return Err(Problem::unexpected_outcome());
    };
    let shown = PreAuthKey::new(&key, &state.store.snapshot().tailnet);
    Ok(Json(PreAuthKeyAnswer { pre_auth_key: PreAuthKey { key: minted.text, ..shown } }))
}

#[derive(Debug, Deserialize)]
pub(super) struct Named {
    #[serde(default, deserialize_with = "or_default")]
    id: String,
}

impl Named {
    fn parse(&self) -> Result<PreauthKeyId, Problem> {
        let wrong = || format!("`{:.40}` is not a preauth key's id", self.id);
        self.id.parse().map_err(|_| Problem::bad_request(wrong()))
    }
}

/// `POST /preauthkey/expire`: revokes it.
pub(super) async fn expire(
    State(state): State<AppState>,
    Body(named): Body<Named>,
) -> Result<Json<Done>, Problem> {
    state.store.submit(Command::RevokePreauthKey { key: named.parse()? }).await?;
    Ok(Json(Done {}))
}

/// `DELETE /preauthkey?id=`.
pub(super) async fn delete(
    State(state): State<AppState>,
    Query(named): Query<Named>,
) -> Result<Json<Done>, Problem> {
    state.store.submit(Command::DeletePreauthKey { key: named.parse()? }).await?;
    Ok(Json(Done {}))
}
