//! `meshcontrol auth`.

use clap::{Args, Subcommand};
use mesh_server::api::v1::{Done, NodeAnswer};
use serde_json::json;

use crate::client::Client;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum AuthVerb {
    /// Let a waiting node in as a node of a user
    #[command(after_help = "\
Example:
  meshcontrol auth register --user alice --auth-id mcreq-abcdefghijklmnopqrstuvwxyz234567")]
    Register {
        /// The node's user, by name or id
        #[arg(short, long)]
        user: String,
        #[command(flatten)]
        login: OneLogin,
    },
    /// Let a waiting node in as a node of the only user, or of the one named
    #[command(after_help = "\
Example:
  meshcontrol auth approve --auth-id mcreq-abcdefghijklmnopqrstuvwxyz234567")]
    Approve {
        /// The node's user, by name or id, if there are several
        #[arg(short, long)]
        user: Option<String>,
        #[command(flatten)]
        login: OneLogin,
    },
    /// Turn a waiting node away
    #[command(after_help = "\
Example:
  meshcontrol auth reject --auth-id mcreq-abcdefghijklmnopqrstuvwxyz234567")]
    Reject {
        #[command(flatten)]
        login: OneLogin,
    },
}

/// Names one login that waits.
#[derive(Debug, Args)]
pub(crate) struct OneLogin {
    /// The auth id, or the whole URL that the client shows
    #[arg(long)]
    auth_id: String,
}

impl AuthVerb {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let (client, output) = (session.client()?, session.output());
        match self {
            Self::Register { user, login } => {
                register(session, &client, &user, &login.auth_id).await
            }
            Self::Approve { user, login } => {
                let body = json!({ "user": user, "authId": auth_id(&login.auth_id) });
                let done: Done = client.post(&["auth", "approve"], &body).await?;
                output.value(&done, || "Login approved".to_owned())
            }
            Self::Reject { login } => {
                let body = json!({ "authId": auth_id(&login.auth_id) });
                let done: Done = client.post(&["auth", "reject"], &body).await?;
                output.value(&done, || "Login rejected".to_owned())
            }
        }
    }
}

/// Lets a waiting node in as a node of a user.
pub(crate) async fn register(
    session: &Session,
    client: &Client,
    user: &str,
    login: &str,
) -> anyhow::Result<()> {
    let body = json!({ "user": user, "authId": auth_id(login) });
    let NodeAnswer { node } = client.post(&["auth", "register"], &body).await?;
    session.output().value(&node, || format!("Node {} registered", node.given_name))
}

/// The auth id in the URL that a client shows, or itself.
fn auth_id(text: &str) -> &str {
    text.rsplit('/').next().unwrap_or(text)
}
