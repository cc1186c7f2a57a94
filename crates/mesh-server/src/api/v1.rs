//! Version 1: headscale's endpoints and shapes.
//!
//! Names are camelCase, ids decimal strings, instants RFC 3339 in UTC; every member is always there, lists
//! are sorted by id and never null. Wherever a user or a node is asked for, its id or its name will do.
//! Beyond headscale: nodes tell what their clients report; a time that is absent or null means never.
//!
//! Source: headscale `hscontrol/api/v1`.

mod api_keys;
mod auth;
mod derp_map;
mod derp_nodes;
mod health;
mod nodes;
mod policy;
mod preauth_keys;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};
use mesh_model::{Node as ModelNode, Tailnet, User as ModelUser};
use mesh_state::Refusal;
use serde::{Deserialize, Serialize};

use super::AppState;

pub use api_keys::{ApiKey, ApiKeyList, MintedApiKey};
pub use health::Health;
pub use nodes::{Node, NodeAnswer, NodeList};
pub use policy::{PolicyAnswer, PolicyVersionHead, PolicyVersionList, TestAnswer, WithText};
pub use preauth_keys::{PreAuthKey, PreAuthKeyAnswer, PreAuthKeyList};
pub use users::{User, UserAnswer, UserList};

/// `{}`: done, nothing to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Done {}

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route("/health", get(health::show))
        .route("/user", get(users::list).post(users::create))
        .route("/user/{id}", delete(users::delete))
        .route("/user/{id}/rename/{name}", post(users::rename))
        .route("/node", get(nodes::list))
        .route("/node/register", post(auth::register_by_query))
        .route("/node/{id}", get(nodes::show).delete(nodes::delete))
        .route("/node/{id}/expire", post(nodes::expire))
        .route("/node/{id}/rename/{name}", post(nodes::rename))
        .route("/node/{id}/tags", post(nodes::tag))
        .route("/node/{id}/approve_routes", post(nodes::approve_routes))
        .route(
            "/preauthkey",
            get(preauth_keys::list).post(preauth_keys::create).delete(preauth_keys::delete),
        )
        .route("/preauthkey/expire", post(preauth_keys::expire))
        .route("/apikey", get(api_keys::list).post(api_keys::create).delete(api_keys::delete))
        .route("/apikey/expire", post(api_keys::expire))
        .route("/apikey/{prefix}", delete(api_keys::delete_by_prefix))
        .route("/derp/map", get(derp_map::show))
        .route("/derp/nodekey", get(derp_nodes::follow))
        .route("/auth/register", post(auth::register))
        .route("/auth/approve", post(auth::approve))
        .route("/auth/reject", post(auth::reject))
        .merge(policy_routes())
}

/// Of policies, which may be longer than other bodies.
fn policy_routes() -> Router<AppState> {
    Router::new()
        .route("/policy", get(policy::show).put(policy::set))
        .route("/policy/check", post(policy::check))
        .route("/policy/test", post(policy::test))
        .route("/policy/explain", post(policy::explain))
        .route("/policy/diff", post(policy::diff))
        .route("/policy/versions", get(policy::versions))
        .route("/policy/versions/{id}", get(policy::version))
        .layer(DefaultBodyLimit::max(policy::POLICY_BODY_BYTES_MAX))
}

/// The user of this id or name. Names start with a letter, so no text is both.
fn find_user<'a>(tailnet: &'a Tailnet, text: &str) -> Result<&'a Arc<ModelUser>, Refusal> {
    let found = match text.parse() {
        Ok(id) => tailnet.user(id),
        Err(_) => tailnet.user_by_name(text),
    };
    found.ok_or(Refusal::UserNotFound)
}

/// The node of this id or name. A name of digits only is found by neither if it is not an id.
pub(super) fn find_node<'a>(
    tailnet: &'a Tailnet,
    text: &str,
) -> Result<&'a Arc<ModelNode>, Refusal> {
    let found = match text.parse() {
        Ok(id) => tailnet.node(id),
        Err(_) => tailnet.node_by_name(text),
    };
    found.ok_or(Refusal::NodeNotFound)
}
