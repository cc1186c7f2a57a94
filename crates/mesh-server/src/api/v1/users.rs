//! `/user`: the people that nodes belong to.

use axum::Json;
use axum::extract::State;
use mesh_model::{Tailnet, Timestamp, UserId};
use mesh_state::{Command, NewUser, Outcome, Refusal};
use mesh_store::SubmitError;
use serde::{Deserialize, Serialize};

use super::{Done, find_user};
use crate::api::extract::{Body, GO_ZERO_TIME, Path, Query, optional_text, or_default};
use crate::api::{AppState, Problem};

/// Longest text about a user, in bytes: clients of every node that sees one of its nodes are told.
const TEXT_BYTES_MAX: usize = 1024;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Decimal.
    pub id: String,
    /// Unique.
    pub name: String,
    /// When the user was made.
    pub created_at: Timestamp,
    /// Name for people to read; may be empty.
    pub display_name: String,
    /// May be empty.
    pub email: String,
    /// The identity provider's id; empty for a local user.
    pub provider_id: String,
    /// Identity provider; empty for a local user.
    pub provider: String,
    /// Absolute URL; may be empty.
    pub profile_pic_url: String,
}

impl User {
    pub(super) fn new(user: &mesh_model::User) -> Self {
        Self {
            id: user.id.to_string(),
            name: user.name.clone(),
            created_at: user.created_at,
            display_name: user.display_name.clone(),
            email: user.email.clone(),
            provider_id: user.provider_id.clone(),
            provider: user.provider.clone(),
            profile_pic_url: user.profile_pic_url.clone(),
        }
    }

    /// The user that a node belongs to, which may be the one that tagged nodes are shown to belong to.
    pub(super) fn of_node(id: UserId, tailnet: &Tailnet) -> Option<Self> {
        if id == UserId::TAGGED_DEVICES {
            return Some(Self::tagged_devices());
        }
        tailnet.user(id).map(|user| Self::new(user))
    }

    fn tagged_devices() -> Self {
        Self {
            id: UserId::TAGGED_DEVICES.to_string(),
            name: "tagged-devices".to_owned(),
            created_at: GO_ZERO_TIME,
            display_name: "Tagged Devices".to_owned(),
            email: String::new(),
            provider_id: String::new(),
            provider: String::new(),
            profile_pic_url: String::new(),
        }
    }
}

/// One user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserAnswer {
    /// It.
    pub user: User,
}

/// Users, by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserList {
    /// All that fit.
    pub users: Vec<User>,
}

/// At most one of them counts: the name, else the address, else the id.
#[derive(Debug, Deserialize)]
pub(super) struct Filter {
    #[serde(default, deserialize_with = "optional_text")]
    id: Option<String>,
    #[serde(default, deserialize_with = "optional_text")]
    name: Option<String>,
    #[serde(default, deserialize_with = "optional_text")]
    email: Option<String>,
}

impl Filter {
    fn takes(&self, user: &mesh_model::User, id: Option<UserId>) -> bool {
        match (&self.name, &self.email, id) {
            (Some(name), _, _) => user.name == *name,
            (None, Some(email), _) => user.email == *email,
            (None, None, Some(id)) => user.id == id,
            (None, None, None) => true,
        }
    }
}

/// `GET /user`.
pub(super) async fn list(
    State(state): State<AppState>,
    Query(filter): Query<Filter>,
) -> Result<Json<UserList>, Problem> {
    let id = filter.id.as_deref().map(parse_id).transpose()?;
    let snapshot = state.store.snapshot();
    let users = snapshot.tailnet.users().filter(|user| filter.takes(user, id));
    Ok(Json(UserList { users: users.map(|user| User::new(user)).collect() }))
}

fn parse_id(text: &str) -> Result<UserId, Problem> {
    text.parse().map_err(|_| Problem::bad_request(format!("`{text:.40}` is not a user's id")))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Create {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    display_name: String,
    #[serde(default, deserialize_with = "or_default")]
    email: String,
    #[serde(default, deserialize_with = "or_default")]
    picture_url: String,
}

/// `POST /user`.
pub(super) async fn create(
    State(state): State<AppState>,
    Body(new): Body<Create>,
) -> Result<Json<UserAnswer>, Problem> {
    for (name, text) in [
        ("displayName", &new.display_name),
        ("email", &new.email),
        ("pictureUrl", &new.picture_url),
    ] {
        if text.len() > TEXT_BYTES_MAX {
            let detail = format!("{name} is longer than {TEXT_BYTES_MAX} bytes");
            return Err(Problem::invalid(format!("body.{name}"), detail));
        }
    }
    let command = Command::CreateUser(NewUser {
        name: new.name,
        display_name: new.display_name,
        email: new.email,
        profile_pic_url: new.picture_url,
    });
    submit(&state, command).await
}

/// `POST /user/{id}/rename/{name}`.
pub(super) async fn rename(
    State(state): State<AppState>,
    Path((user, name)): Path<(String, String)>,
) -> Result<Json<UserAnswer>, Problem> {
    let user = find_user(&state.store.snapshot().tailnet, &user)?.id;
    submit(&state, Command::RenameUser { user, name }).await
}

/// `DELETE /user/{id}`.
pub(super) async fn delete(
    State(state): State<AppState>,
    Path(user): Path<String>,
) -> Result<Json<Done>, Problem> {
    let user = find_user(&state.store.snapshot().tailnet, &user)?.id;
    state.store.submit(Command::DeleteUser { user }).await?;
    Ok(Json(Done {}))
}

async fn submit(state: &AppState, command: Command) -> Result<Json<UserAnswer>, Problem> {
    match state.store.submit(command).await {
        Ok(Outcome::User(user)) => Ok(Json(UserAnswer { user: User::new(&user) })),
        Ok(_) => Err(Problem::unexpected_outcome()),
        // Unlike a node's name, for which the answer is 400.
        Err(SubmitError::Refused(refusal @ Refusal::NameTaken(_))) => {
            Err(Problem::conflict(refusal.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}
