//! `/node`: the nodes of the tailnet.

use axum::Json;
use axum::extract::State;
use ipnet::IpNet;
use mesh_model::{NodeId, ParseTagError, RegisterMethod, Tag, Timestamp};
use mesh_policy::{CompiledPolicy, active_routes};
use mesh_state::{Command, Outcome, Snapshot};
use serde::{Deserialize, Serialize};

use super::{Done, PreAuthKey, User, find_node, find_user};
use crate::api::extract::{Body, Path, Query, optional_instant, optional_text, or_default};
use crate::api::{AppState, Problem};

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Decimal.
    pub id: String,
    /// `mkey:` and 64 hex digits.
    pub machine_key: String,
    /// `nodekey:` and 64 hex digits.
    pub node_key: String,
    /// `discokey:` and 64 hex digits, all zero until the client's first map request.
    pub disco_key: String,
    /// Its addresses in the tailnet, IPv4 first.
    pub ip_addresses: Vec<String>,
    /// The hostname as the client reports it.
    pub name: String,
    /// Whose node it is; for tagged ones the pseudo user `tagged-devices`.
    pub user: Option<User>,
    /// When it was last heard of; kept up only while it is offline.
    pub last_seen: Option<Timestamp>,
    /// From when on its key counts no more; `null` is never.
    pub expiry: Option<Timestamp>,
    /// The key it came in with, if that still exists.
    pub pre_auth_key: Option<PreAuthKey>,
    /// When it was first registered.
    pub created_at: Timestamp,
    /// `REGISTER_METHOD_AUTH_KEY`, `REGISTER_METHOD_CLI` or `REGISTER_METHOD_OIDC`.
    pub register_method: String,
    /// Its unique DNS label.
    pub given_name: String,
    /// Whether a map stream holds it.
    pub online: bool,
    /// Routes that an admin lets it carry.
    pub approved_routes: Vec<String>,
    /// Routes that it offers to carry.
    pub available_routes: Vec<String>,
    /// Routes that it carries: those of its approved and available ones that it is the primary router of, and exit
    /// routes, of which everyone chooses a router.
    pub subnet_routes: Vec<String>,
    /// Its tags; none for a person's node.
    pub tags: Vec<String>,
    /// Whether it is removed once it has been away for a while.
    pub ephemeral: bool,
    /// Operating system, as `linux`.
    pub os: String,
    /// Version of the operating system.
    pub os_version: String,
    /// Version of the client.
    pub client_version: String,
    /// The DERP region it listens on.
    pub home_derp: Option<u32>,
    /// Where peers may try to reach it.
    pub endpoints: Vec<String>,
}

impl Node {
    pub(super) fn new(node: &mesh_model::Node, snapshot: &Snapshot) -> Self {
        let (hostinfo, tailnet) = (&node.hostinfo, &snapshot.tailnet);
        let preauth_key = node.preauth_key.and_then(|key| tailnet.preauth_key(key));
        Self {
            id: node.id.to_string(),
            machine_key: node.machine_key.to_string(),
            node_key: node.node_key.to_string(),
            disco_key: node.disco_key.to_string(),
            ip_addresses: texts(node.addresses()),
            name: hostinfo.hostname.clone(),
            user: User::of_node(node.owner.user(), tailnet),
            last_seen: node.last_seen_at,
            expiry: node.expires_at,
            pre_auth_key: preauth_key.map(|key| PreAuthKey::new(key, tailnet)),
            created_at: node.created_at,
            register_method: register_method(node.register_method).to_owned(),
            given_name: node.given_name.clone(),
            online: node.session.is_some(),
            approved_routes: texts(&node.approved_routes),
            available_routes: texts(&hostinfo.routable_ips),
            subnet_routes: texts(serving(node, &snapshot.policy)),
            tags: texts(node.owner.tags()),
            ephemeral: node.ephemeral,
            os: hostinfo.os.clone(),
            os_version: hostinfo.os_version.clone(),
            client_version: hostinfo.ipn_version.clone(),
            home_derp: node.home_derp,
            endpoints: texts(&node.endpoints),
        }
    }
}

fn serving(node: &mesh_model::Node, policy: &CompiledPolicy) -> Vec<IpNet> {
    let active = active_routes(&node.hostinfo.routable_ips, &node.approved_routes);
    let exit = active.into_iter().filter(|route| route.prefix_len() == 0);
    exit.chain(policy.primary_routes(node.id)).collect()
}

fn texts<T: ToString>(values: impl IntoIterator<Item = T>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}

fn register_method(method: RegisterMethod) -> &'static str {
    match method {
        RegisterMethod::AuthKey => "REGISTER_METHOD_AUTH_KEY",
        RegisterMethod::Cli => "REGISTER_METHOD_CLI",
        RegisterMethod::Oidc => "REGISTER_METHOD_OIDC",
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAnswer {
    /// It.
    pub node: Node,
}

/// Nodes, by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeList {
    /// All that fit.
    pub nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Filter {
    #[serde(default, deserialize_with = "optional_text")]
    user: Option<String>,
}

/// `GET /node`.
pub(super) async fn list(
    State(state): State<AppState>,
    Query(filter): Query<Filter>,
) -> Result<Json<NodeList>, Problem> {
    let snapshot = &state.store.snapshot();
    let tailnet = &snapshot.tailnet;
    let shape = |node: &std::sync::Arc<mesh_model::Node>| Node::new(node, snapshot);
    let nodes = match filter.user {
        None => tailnet.nodes().map(shape).collect(),
        Some(user) => tailnet.nodes_of_user(find_user(tailnet, &user)?.id).map(shape).collect(),
    };
    Ok(Json(NodeList { nodes }))
}

/// `GET /node/{id}`.
pub(super) async fn show(
    State(state): State<AppState>,
    Path(node): Path<String>,
) -> Result<Json<NodeAnswer>, Problem> {
    let snapshot = &state.store.snapshot();
    let node = Node::new(find_node(&snapshot.tailnet, &node)?, snapshot);
    Ok(Json(NodeAnswer { node }))
}

/// `DELETE /node/{id}`.
pub(super) async fn delete(
    State(state): State<AppState>,
    Path(node): Path<String>,
) -> Result<Json<Done>, Problem> {
    let node = id_of(&state, &node)?;
    state.store.submit(Command::DeleteNode { node }).await?;
    Ok(Json(Done {}))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Expire {
    #[serde(default, deserialize_with = "optional_instant")]
    expiry: Option<Timestamp>,
    #[serde(default, deserialize_with = "or_default")]
    disable_expiry: bool,
}

/// `POST /node/{id}/expire`: at an instant, never, or without a body at once.
pub(super) async fn expire(
    State(state): State<AppState>,
    Path(node): Path<String>,
    Body(wanted): Body<Expire>,
) -> Result<Json<NodeAnswer>, Problem> {
    let expires_at = match (wanted.expiry, wanted.disable_expiry) {
        (Some(_), true) => {
            return Err(Problem::bad_request("give either `expiry` or `disableExpiry`"));
        }
        (None, true) => None,
        (expiry, false) => Some(expiry.unwrap_or_else(|| state.clock.now())),
    };
    let node = id_of(&state, &node)?;
    submit(&state, Command::SetNodeExpiry { node, expires_at }).await
}

/// `POST /node/{id}/rename/{name}`.
pub(super) async fn rename(
    State(state): State<AppState>,
    Path((node, name)): Path<(String, String)>,
) -> Result<Json<NodeAnswer>, Problem> {
    let node = id_of(&state, &node)?;
    submit(&state, Command::RenameNode { node, name }).await
}

#[derive(Debug, Deserialize)]
pub(super) struct Tags {
    #[serde(default, deserialize_with = "or_default")]
    tags: Vec<String>,
}

/// `POST /node/{id}/tags`: all of its tags.
pub(super) async fn tag(
    State(state): State<AppState>,
    Path(node): Path<String>,
    Body(wanted): Body<Tags>,
) -> Result<Json<NodeAnswer>, Problem> {
    let tags = parse_tags(&wanted.tags)?;
    let node = id_of(&state, &node)?;
    submit(&state, Command::TagNode { node, tags }).await
}

pub(super) fn parse_tags(texts: &[String]) -> Result<Vec<Tag>, Problem> {
    let parse = |text: &String| {
        text.parse().map_err(|error: ParseTagError| Problem::bad_request(error.to_string()))
    };
    texts.iter().map(parse).collect()
}

#[derive(Debug, Deserialize)]
pub(super) struct Routes {
    #[serde(default, deserialize_with = "or_default")]
    routes: Vec<String>,
}

/// `POST /node/{id}/approve_routes`: all of its approved routes.
pub(super) async fn approve_routes(
    State(state): State<AppState>,
    Path(node): Path<String>,
    Body(wanted): Body<Routes>,
) -> Result<Json<NodeAnswer>, Problem> {
    let parse = |text: &String| {
        let wrong = || format!("`{text:.50}` is not a route such as 10.0.0.0/8 or fd00::/64");
        text.parse().map_err(|_| Problem::bad_request(wrong()))
    };
    let routes = wanted.routes.iter().map(parse).collect::<Result<_, _>>()?;
    let node = id_of(&state, &node)?;
    submit(&state, Command::ApproveRoutes { node, routes }).await
}

fn id_of(state: &AppState, node: &str) -> Result<NodeId, Problem> {
    Ok(find_node(&state.store.snapshot().tailnet, node)?.id)
}

/// Carries out a command that ends in a node, and shows the node.
pub(super) async fn submit(
    state: &AppState,
    command: Command,
) -> Result<Json<NodeAnswer>, Problem> {
    let Outcome::Node(node) = state.store.submit(command).await? else {
        return Err(Problem::unexpected_outcome());
    };
    let node = Node::new(&node, &state.store.snapshot());
    Ok(Json(NodeAnswer { node }))
}
