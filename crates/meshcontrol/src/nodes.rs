//! `meshcontrol nodes`.

use clap::{Args, Subcommand};
use mesh_cli::{instant, instant_or_never, list, properties, table, yes_no};
use mesh_server::api::v1::{Done, Node, NodeAnswer, NodeList};
use serde_json::json;

use crate::auth::register;
use crate::client::Client;
use crate::session::Session;
use crate::when::{When, now};

#[derive(Debug, Subcommand)]
pub(crate) enum NodesVerb {
    /// Show nodes
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  meshcontrol nodes list
  meshcontrol nodes list --user alice --output json"
    )]
    List {
        /// Only those of this user, by name or id
        #[arg(short, long)]
        user: Option<String>,
    },
    /// Show one node whole, or all of them if none is named
    #[command(after_help = "\
Examples:
  meshcontrol nodes show laptop
  meshcontrol nodes show --identifier 7")]
    Show {
        /// The node's id or name
        #[arg(conflicts_with = "identifier")]
        node: Option<String>,
        /// The node's id or name
        #[arg(short, long, value_name = "NODE")]
        identifier: Option<String>,
        /// Only those of this user, by name or id
        #[arg(short, long, conflicts_with_all = ["node", "identifier"])]
        user: Option<String>,
    },
    /// Show the routes of nodes that have any
    #[command(visible_aliases = ["lsr", "routes"], after_help = "\
Example:
  meshcontrol nodes list-routes")]
    ListRoutes {
        /// Only of this node, by id or name
        #[arg(short, long, value_name = "NODE")]
        identifier: Option<String>,
    },
    /// Let a waiting node in; `auth register` does the same
    #[command(
        hide = true,
        after_help = "\
Example:
  meshcontrol nodes register --user alice --key mcreq-abcdefghijklmnopqrstuvwxyz234567"
    )]
    Register {
        /// The node's user, by name or id
        #[arg(short, long)]
        user: String,
        /// The auth id
        #[arg(short, long)]
        key: String,
    },
    /// Expire a node's key, so that it has to log in again
    #[command(visible_aliases = ["logout", "exp", "e"], after_help = "\
Examples:
  meshcontrol nodes expire --identifier laptop
  meshcontrol nodes expire --identifier laptop --expiry 30d
  meshcontrol nodes expire --identifier server --disable")]
    Expire {
        #[command(flatten)]
        node: OneNode,
        /// When: an instant such as 2030-01-31T12:00:00Z, or a time from now such as 30d; default: at once
        #[arg(short, long, value_name = "WHEN")]
        expiry: Option<When>,
        /// Let it never expire
        #[arg(short, long, conflicts_with = "expiry")]
        disable: bool,
    },
    /// Give a node a name that no longer follows its hostname
    #[command(after_help = "\
Example:
  meshcontrol nodes rename --identifier 7 web-1")]
    Rename {
        #[command(flatten)]
        node: OneNode,
        /// A DNS label: a-z, 0-9 and `-`
        new_name: String,
    },
    /// Remove a node
    #[command(
        visible_alias = "del",
        after_help = "\
Example:
  meshcontrol nodes delete --identifier laptop"
    )]
    Delete {
        #[command(flatten)]
        node: OneNode,
    },
    /// Replace a node's tags, which then own it
    #[command(visible_aliases = ["tags", "t"], after_help = "\
Example:
  meshcontrol nodes tag --identifier 7 --tags tag:web,tag:prod")]
    Tag {
        #[command(flatten)]
        node: OneNode,
        /// All of its tags
        #[arg(short, long, value_delimiter = ',', required = true)]
        tags: Vec<String>,
    },
    /// Replace the routes that a node may carry
    #[command(after_help = "\
Examples:
  meshcontrol nodes approve-routes --identifier router --routes 10.0.0.0/8,192.168.1.0/24
  meshcontrol nodes approve-routes --identifier router --routes ''")]
    ApproveRoutes {
        #[command(flatten)]
        node: OneNode,
        /// All of its approved routes; empty for none
        #[arg(short, long, value_delimiter = ',', required = true)]
        routes: Vec<String>,
    },
}

/// Names one node.
#[derive(Debug, Args)]
pub(crate) struct OneNode {
    /// The node's id or name
    #[arg(short, long, value_name = "NODE")]
    identifier: String,
}

impl NodesVerb {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let (client, output) = (session.client()?, session.output());
        match self {
            Self::List { user } | Self::Show { node: None, identifier: None, user } => {
                let nodes = list_nodes(&client, user.as_deref()).await?;
                output.value(&nodes, || nodes_table(&nodes))
            }
            Self::Show { node: Some(node), .. } | Self::Show { identifier: Some(node), .. } => {
                let node = show_node(&client, &node).await?;
                output.value(&node, || node_properties(&node))
            }
            Self::ListRoutes { identifier } => {
                let mut nodes = match identifier {
                    Some(node) => vec![show_node(&client, &node).await?],
                    None => list_nodes(&client, None).await?,
                };
                nodes.retain(has_routes);
                output.value(&nodes, || routes_table(&nodes))
            }
            Self::Register { user, key } => register(session, &client, &user, &key).await,
            Self::Expire { node, expiry, disable } => {
                let never = disable || expiry == Some(When::Never);
                let body = json!({ "expiry": expiry, "disableExpiry": never });
                let node = node.change(&client, "expire", &body).await?;
                output.value(&node, || match node.expiry {
                    None => format!("Node {} does not expire any more", node.given_name),
                    Some(at) => format!("Node {} expires at {}", node.given_name, instant(at)),
                })
            }
            Self::Rename { node, new_name } => {
                let path = ["node", &node.identifier, "rename", &new_name];
                let NodeAnswer { node } = client.post(&path, &json!({})).await?;
                output.value(&node, || format!("Node {} is named {}", node.id, node.given_name))
            }
            Self::Delete { node } => {
                let node = show_node(&client, &node.identifier).await?;
                session
                    .confirm(&format!("Remove the node {} (id {})?", node.given_name, node.id))?;
                let done: Done = client.delete(&["node", &node.id], &[]).await?;
                output.value(&done, || format!("Node {} deleted", node.given_name))
            }
            Self::Tag { node, tags } => {
                let node = node.change(&client, "tags", &json!({ "tags": given(tags) })).await?;
                output.value(&node, || format!("Node {} has {}", node.given_name, list(&node.tags)))
            }
            Self::ApproveRoutes { node, routes } => {
                let body = json!({ "routes": given(routes) });
                let node = node.change(&client, "approve_routes", &body).await?;
                output.value(&node, || match node.approved_routes.as_slice() {
                    [] => format!("Node {} may carry no routes", node.given_name),
                    routes => format!("Node {} may carry {}", node.given_name, list(routes)),
                })
            }
        }
    }
}

impl OneNode {
    async fn change(
        &self,
        client: &Client,
        what: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<Node> {
        let NodeAnswer { node } = client.post(&["node", &self.identifier, what], body).await?;
        Ok(node)
    }
}

/// An empty argument is an empty list.
fn given(mut texts: Vec<String>) -> Vec<String> {
    texts.retain(|text| !text.is_empty());
    texts
}

async fn list_nodes(client: &Client, user: Option<&str>) -> anyhow::Result<Vec<Node>> {
    let NodeList { nodes } = client.get(&["node"], &[("user", user)]).await?;
    Ok(nodes)
}

async fn show_node(client: &Client, node: &str) -> anyhow::Result<Node> {
    let NodeAnswer { node } = client.get(&["node", node], &[]).await?;
    Ok(node)
}

fn has_routes(node: &Node) -> bool {
    !(node.approved_routes.is_empty() && node.available_routes.is_empty())
}

fn nodes_table(nodes: &[Node]) -> String {
    let header = [
        "ID",
        "Hostname",
        "Name",
        "MachineKey",
        "NodeKey",
        "User",
        "Tags",
        "IP addresses",
        "Ephemeral",
        "Last seen",
        "Expiration",
        "Connected",
        "Expired",
    ];
    let row = |node: &Node| {
        [
            node.id.clone(),
            node.name.clone(),
            node.given_name.clone(),
            short_key(&node.machine_key),
            short_key(&node.node_key),
            user_name(node),
            list(&node.tags),
            list(&node.ip_addresses),
            yes_no(node.ephemeral),
            last_seen(node),
            instant_or_never(node.expiry),
            connected(node),
            yes_no(is_expired(node)),
        ]
    };
    table(header, nodes.iter().map(row))
}

fn routes_table(nodes: &[Node]) -> String {
    let row = |node: &Node| {
        [
            node.id.clone(),
            node.given_name.clone(),
            list(&node.approved_routes),
            list(&node.available_routes),
            list(&node.subnet_routes),
        ]
    };
    let header = ["ID", "Hostname", "Approved", "Available", "Serving (primary)"];
    table(header, nodes.iter().map(row))
}

fn node_properties(node: &Node) -> String {
    properties([
        ("ID", node.id.clone()),
        ("Name", node.given_name.clone()),
        ("Hostname", node.name.clone()),
        ("User", user_name(node)),
        ("Tags", list(&node.tags)),
        ("IP addresses", list(&node.ip_addresses)),
        ("Connected", connected(node)),
        ("Last seen", last_seen(node)),
        ("Expiration", instant_or_never(node.expiry)),
        ("Expired", yes_no(is_expired(node))),
        ("Ephemeral", yes_no(node.ephemeral)),
        ("Created", instant(node.created_at)),
        ("Registered by", node.register_method.replace("REGISTER_METHOD_", "").to_lowercase()),
        ("Preauth key", node.pre_auth_key.as_ref().map_or_else(String::new, |key| key.id.clone())),
        ("System", format!("{} {}", node.os, node.os_version).trim().to_owned()),
        ("Client", node.client_version.clone()),
        ("DERP region", node.home_derp.map_or_else(String::new, |region| region.to_string())),
        ("Endpoints", list(&node.endpoints)),
        ("Approved routes", list(&node.approved_routes)),
        ("Available routes", list(&node.available_routes)),
        ("Serving routes", list(&node.subnet_routes)),
        ("Machine key", node.machine_key.clone()),
        ("Node key", node.node_key.clone()),
        ("Disco key", node.disco_key.clone()),
    ])
}

fn user_name(node: &Node) -> String {
    node.user.as_ref().map_or_else(String::new, |user| user.name.clone())
}

fn last_seen(node: &Node) -> String {
    match node.last_seen {
        _ if node.online => "now".to_owned(),
        Some(at) => instant(at),
        None => String::new(),
    }
}

fn connected(node: &Node) -> String {
    if node.online { "online" } else { "offline" }.to_owned()
}

fn is_expired(node: &Node) -> bool {
    node.expiry.is_some_and(|at| at <= now())
}

/// The first digits of a key: enough to tell one from another by eye.
fn short_key(key: &str) -> String {
    let digits = key.split_once(':').map_or(key, |(_, digits)| digits);
    digits.chars().take(8).collect()
}
