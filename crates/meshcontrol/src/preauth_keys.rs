//! `meshcontrol preauthkeys`.

use clap::{Args, Subcommand};
use mesh_cli::{instant, instant_or_never, list, table, yes_no};
use mesh_server::api::v1::{Done, PreAuthKey, PreAuthKeyAnswer, PreAuthKeyList};
use serde_json::json;

use crate::session::Session;
use crate::when::When;

#[derive(Debug, Subcommand)]
pub(crate) enum PreauthKeysVerb {
    /// Make a key and print it; it is shown this once
    #[command(visible_aliases = ["c", "new"], after_help = "\
Examples:
  meshcontrol preauthkeys create --user alice
  meshcontrol preauthkeys create --tags tag:web --reusable --ephemeral --expiration 30d")]
    Create {
        /// Whose nodes it registers, by name or id; optional with tags
        #[arg(short, long, required_unless_present = "tags")]
        user: Option<String>,
        /// Let it register more than one node
        #[arg(long)]
        reusable: bool,
        /// Remove its nodes when they go away
        #[arg(long)]
        ephemeral: bool,
        /// When it ends: a time from now such as 30m or 7d, an instant, or never
        #[arg(short, long, value_name = "WHEN", default_value = "1h")]
        expiration: When,
        /// Tags of its nodes, which then belong to nobody else
        #[arg(long, value_delimiter = ',')]
        tags: Vec<String>,
    },
    /// Show keys, without their secrets
    #[command(visible_aliases = ["ls", "show"], after_help = "\
Example:
  meshcontrol preauthkeys list")]
    List {
        /// Only those of this user, by name or id
        #[arg(short, long)]
        user: Option<String>,
    },
    /// Take a key back: it registers nothing more
    #[command(visible_aliases = ["revoke", "exp", "e"], after_help = "\
Example:
  meshcontrol preauthkeys expire --id 3")]
    Expire {
        #[command(flatten)]
        key: OneKey,
    },
    /// Remove a key; nodes that used it stay
    #[command(visible_aliases = ["del", "rm", "d"], after_help = "\
Example:
  meshcontrol preauthkeys delete --id 3")]
    Delete {
        #[command(flatten)]
        key: OneKey,
    },
}

/// Names one key.
#[derive(Debug, Args)]
pub(crate) struct OneKey {
    /// The key's id
    #[arg(short, long)]
    id: String,
}

impl PreauthKeysVerb {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let (client, output) = (session.client()?, session.output());
        match self {
            Self::Create { user, reusable, ephemeral, expiration, tags } => {
                let body = json!({
                    "user": user,
                    "reusable": reusable,
                    "ephemeral": ephemeral,
                    "expiration": expiration,
                    "aclTags": tags,
                });
                let PreAuthKeyAnswer { pre_auth_key } = client.post(&["preauthkey"], &body).await?;
                output.value(&pre_auth_key, || pre_auth_key.key.clone())
            }
            Self::List { user } => {
                let query = [("user", user.as_deref())];
                let PreAuthKeyList { pre_auth_keys } = client.get(&["preauthkey"], &query).await?;
                output.value(&pre_auth_keys, || keys_table(&pre_auth_keys))
            }
            Self::Expire { key } => {
                let body = json!({ "id": key.id });
                let done: Done = client.post(&["preauthkey", "expire"], &body).await?;
                output.value(&done, || format!("Key {} expired", key.id))
            }
            Self::Delete { key } => {
                let query = [("id", Some(&*key.id))];
                let done: Done = client.delete(&["preauthkey"], &query).await?;
                output.value(&done, || format!("Key {} deleted", key.id))
            }
        }
    }
}

fn keys_table(keys: &[PreAuthKey]) -> String {
    let row = |key: &PreAuthKey| {
        [
            key.id.clone(),
            key.key.clone(),
            yes_no(key.reusable),
            yes_no(key.ephemeral),
            yes_no(key.used),
            instant_or_never(key.expiration),
            instant(key.created_at),
            owner(key),
        ]
    };
    let header =
        ["ID", "Key/Prefix", "Reusable", "Ephemeral", "Used", "Expiration", "Created", "Owner"];
    table(header, keys.iter().map(row))
}

/// Whom its nodes belong to.
fn owner(key: &PreAuthKey) -> String {
    match &key.user {
        Some(user) if key.acl_tags.is_empty() => user.name.clone(),
        Some(_) | None => list(&key.acl_tags),
    }
}
