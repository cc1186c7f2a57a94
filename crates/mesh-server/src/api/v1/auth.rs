//! `/auth`: logins that wait for an admin.

use axum::Json;
use axum::extract::State;
use mesh_model::{AuthId, Tailnet, UserId};
use mesh_state::Command;
use serde::Deserialize;

use super::nodes::submit;
use super::{Done, NodeAnswer, find_user};
use crate::api::extract::{Body, Query, or_default};
use crate::api::{AppState, Problem};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Decide {
    #[serde(default, deserialize_with = "or_default")]
    user: String,
    #[serde(default, deserialize_with = "or_default")]
    auth_id: String,
}

/// What headscale called them before there was `/auth`.
#[derive(Debug, Deserialize)]
pub(super) struct RegisterByQuery {
    #[serde(default)]
    user: String,
    #[serde(default)]
    key: String,
}

/// `POST /auth/register`: lets a login in as a node of this user.
pub(super) async fn register(
    State(state): State<AppState>,
    Body(decision): Body<Decide>,
) -> Result<Json<NodeAnswer>, Problem> {
    let auth_id = parse_auth_id(&decision.auth_id)?;
    let user = find_user(&state.store.snapshot().tailnet, &decision.user)?.id;
    submit(&state, Command::ApproveLogin { auth_id, user }).await
}

/// `POST /node/register?user=&key=`: the same for older clients.
pub(super) async fn register_by_query(
    state: State<AppState>,
    Query(query): Query<RegisterByQuery>,
) -> Result<Json<NodeAnswer>, Problem> {
    register(state, Body(Decide { user: query.user, auth_id: query.key })).await
}

/// `POST /auth/approve`: lets a login in as a node of this user, or of the only one there is.
pub(super) async fn approve(
    State(state): State<AppState>,
    Body(decision): Body<Decide>,
) -> Result<Json<Done>, Problem> {
    let auth_id = parse_auth_id(&decision.auth_id)?;
    let user = match decision.user.as_str() {
        "" => only_user(&state.store.snapshot().tailnet)?,
        user => find_user(&state.store.snapshot().tailnet, user)?.id,
    };
    state.store.submit(Command::ApproveLogin { auth_id, user }).await?;
    Ok(Json(Done {}))
}

/// `POST /auth/reject`: turns a login away.
pub(super) async fn reject(
    State(state): State<AppState>,
    Body(decision): Body<Decide>,
) -> Result<Json<Done>, Problem> {
    let auth_id = parse_auth_id(&decision.auth_id)?;
    state.store.submit(Command::RejectLogin { auth_id }).await?;
    Ok(Json(Done {}))
}

fn only_user(tailnet: &Tailnet) -> Result<UserId, Problem> {
    let mut users = tailnet.users();
    match (users.next(), users.next()) {
        (Some(user), None) => Ok(user.id),
        (None, _) => Err(Problem::bad_request(
            "a node belongs to a user and there is none: `meshcontrol users create NAME` makes one",
        )),
        (Some(_), Some(_)) => Err(Problem::bad_request(
            "there are several users, so say whose node it is to be: `meshcontrol auth register`",
        )),
    }
}

fn parse_auth_id(text: &str) -> Result<AuthId, Problem> {
    text.parse()
        .map_err(|error: mesh_model::ParseAuthIdError| Problem::bad_request(error.to_string()))
}
