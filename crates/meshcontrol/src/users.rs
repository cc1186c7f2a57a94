//! `meshcontrol users`.

use clap::{Args, Subcommand};
use mesh_cli::{instant, table};
use mesh_server::api::v1::{Done, User, UserAnswer, UserList};
use serde_json::json;

use crate::client::Client;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum UsersVerb {
    /// Make a user
    #[command(visible_aliases = ["c", "new"], after_help = "\
Example:
  meshcontrol users create alice --display-name 'Alice Example'")]
    Create {
        /// Unique name: letters, digits, `.`, `_`, `-` and one `@`, a letter first
        name: String,
        /// Name for people to read
        #[arg(short, long, default_value = "", hide_default_value = true)]
        display_name: String,
        /// Address for mail
        #[arg(short, long, default_value = "", hide_default_value = true)]
        email: String,
        /// URL of a picture
        #[arg(short, long, default_value = "", hide_default_value = true, value_name = "URL")]
        picture_url: String,
    },
    /// Show users
    #[command(visible_aliases = ["ls", "show"], after_help = "\
Examples:
  meshcontrol users list
  meshcontrol users list --name alice --output json")]
    List {
        /// Only the one of this id
        #[arg(short, long)]
        identifier: Option<String>,
        /// Only the one of this name
        #[arg(short, long)]
        name: Option<String>,
        /// Only those of this address
        #[arg(short, long)]
        email: Option<String>,
    },
    /// Remove a user that owns no nodes, and its preauth keys
    #[command(
        visible_alias = "delete",
        after_help = "\
Example:
  meshcontrol users destroy --name alice"
    )]
    Destroy {
        #[command(flatten)]
        user: OneUser,
    },
    /// Give a user another name
    #[command(
        visible_alias = "mv",
        after_help = "\
Example:
  meshcontrol users rename --name alice --new-name alicia"
    )]
    Rename {
        #[command(flatten)]
        user: OneUser,
        /// The new name
        #[arg(short = 'r', long)]
        new_name: String,
    },
}

/// Names one user.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct OneUser {
    /// The user's id
    #[arg(short, long)]
    identifier: Option<String>,
    /// The user's name
    #[arg(short, long)]
    name: Option<String>,
}

impl OneUser {
    async fn find(&self, client: &Client) -> anyhow::Result<User> {
        let query = [("id", self.identifier.as_deref()), ("name", self.name.as_deref())];
        let list: UserList = client.get(&["user"], &query).await?;
        let [user] = <[User; 1]>::try_from(list.users)
            .map_err(|_| anyhow::anyhow!("user not found: `meshcontrol users list` shows them"))?;
        Ok(user)
    }
}

impl UsersVerb {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let (client, output) = (session.client()?, session.output());
        match self {
            Self::Create { name, display_name, email, picture_url } => {
                let body = json!({
                    "name": name,
                    "displayName": display_name,
                    "email": email,
                    "pictureUrl": picture_url,
                });
                let UserAnswer { user } = client.post(&["user"], &body).await?;
                output.value(&user, || format!("User {} created with id {}", user.name, user.id))
            }
            Self::List { identifier, name, email } => {
                let query = [
                    ("id", identifier.as_deref()),
                    ("name", name.as_deref()),
                    ("email", email.as_deref()),
                ];
                let UserList { users } = client.get(&["user"], &query).await?;
                output.value(&users, || users_table(&users))
            }
            Self::Destroy { user } => {
                let user = user.find(&client).await?;
                session.confirm(&format!(
                    "Remove the user {} (id {}) and its preauth keys?",
                    user.name, user.id
                ))?;
                let done: Done = client.delete(&["user", &user.id], &[]).await?;
                output.value(&done, || format!("User {} destroyed", user.name))
            }
            Self::Rename { user, new_name } => {
                let old = user.find(&client).await?;
                let path = ["user", &old.id, "rename", &new_name];
                let UserAnswer { user } = client.post(&path, &json!({})).await?;
                output.value(&user, || format!("User {} renamed to {}", old.name, user.name))
            }
        }
    }
}

fn users_table(users: &[User]) -> String {
    let row = |user: &User| {
        [
            user.id.clone(),
            user.display_name.clone(),
            user.name.clone(),
            user.email.clone(),
            instant(user.created_at),
        ]
    };
    table(["ID", "Name", "Username", "Email", "Created"], users.iter().map(row))
}
