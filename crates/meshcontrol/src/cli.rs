//! The command line: headscale's verbs, aliases and flags, and a few more.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use mesh_cli::Output;
use mesh_config::Override;

use crate::api_keys::ApiKeysVerb;
use crate::auth::AuthVerb;
use crate::derp::DerpArgs;
use crate::derp_map::DerpMapVerb;
use crate::generate::GenerateVerb;
use crate::nodes::NodesVerb;
use crate::policy::PolicyVerb;
use crate::preauth_keys::PreauthKeysVerb;
use crate::session::{Loaded, Session};
use crate::users::UsersVerb;

/// A self-hosted control server for Tailscale clients.
#[derive(Debug, Parser)]
#[command(
    name = "meshcontrol",
    version = crate::version::VERSION,
    max_term_width = 100,
    arg_required_else_help = true,
    after_help = "\
Examples:
  meshcontrol serve
  meshcontrol users create alice
  meshcontrol preauthkeys create --user alice
  meshcontrol nodes list

The verbs speak to the server on this machine through its unix socket. To administer another one,
set MESHCONTROL_CLI_ADDRESS to its URL and MESHCONTROL_CLI_API_KEY to one of its API keys.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 server not reached."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every verb takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Configuration file [default: `MESHCONTROL_CONFIG`]
    #[arg(short, long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the database, the keys and the socket are [default: `MESHCONTROL_DATA_DIR`]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Form of what is printed, errors too
    #[arg(short, long, global = true, value_enum, value_name = "FORM", default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// Do not ask before something is deleted
    #[arg(long, global = true)]
    pub(crate) force: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    #[command(after_help = "\
Examples:
  meshcontrol serve
  meshcontrol serve --listen 127.0.0.1:8080 --data-dir /srv/mesh
  meshcontrol serve --config /etc/meshcontrol/config.yaml")]
    Serve(ServeArgs),
    /// Run a relay by itself, without a database
    ///
    /// A relay carries what nodes send to each other while they cannot reach each other directly. It cannot
    /// read it. Everything that has no flag is below `derp.server` in the configuration, as is what `serve`
    /// does as a relay. On start it prints what the DERP map of a control server is to say of it.
    #[command(after_help = "\
Examples, the first with a certificate of its own that clients pin:
  meshcontrol derp --hostname 192.0.2.7 --verify-url https://mesh.example.com/verify
  meshcontrol derp --hostname relay.example.com --cert fullchain.pem --key key.pem --open
Behind a proxy that does TLS:
  meshcontrol derp --hostname relay.example.com --listen '' --http 127.0.0.1:8080 --open
In a mesh, whose key and other relays a file names:
  meshcontrol derp --config relay.yaml")]
    Derp(DerpArgs),
    /// Make, show and remove users, whom nodes belong to
    #[command(
        visible_alias = "user",
        after_help = "\
Example:
  meshcontrol users list"
    )]
    Users {
        #[command(subcommand)]
        verb: UsersVerb,
    },
    /// Show and change nodes
    #[command(
        visible_alias = "node",
        after_help = "\
Example:
  meshcontrol nodes list --user alice"
    )]
    Nodes {
        #[command(subcommand)]
        verb: NodesVerb,
    },
    /// Read, check, try out and replace the policy, which says who may reach whom
    #[command(after_help = "\
Examples:
  meshcontrol policy check --file policy.hujson
  meshcontrol policy diff --file policy.hujson
  meshcontrol policy set --file policy.hujson")]
    Policy {
        #[command(subcommand)]
        verb: PolicyVerb,
    },
    /// Make, show and revoke the keys by which nodes register
    #[command(visible_aliases = ["preauthkey", "authkey", "pre"], after_help = "\
Example:
  meshcontrol preauthkeys create --user alice --expiration 24h")]
    Preauthkeys {
        #[command(subcommand)]
        verb: PreauthKeysVerb,
    },
    /// Show the relays that clients are told of, and check that they can be used
    #[command(after_help = "\
Examples:
  meshcontrol derp-map show
  meshcontrol derp-map check --file derp.yaml")]
    DerpMap {
        #[command(subcommand)]
        verb: DerpMapVerb,
    },
    /// Decide on nodes that wait for approval
    #[command(after_help = "\
Example:
  meshcontrol auth register --user alice --auth-id mcreq-abcdefghijklmnopqrstuvwxyz234567")]
    Auth {
        #[command(subcommand)]
        verb: AuthVerb,
    },
    /// Make, show and end the keys that open the admin API
    #[command(visible_aliases = ["apikey", "api"], after_help = "\
Example:
  meshcontrol apikeys create --expiration 90d")]
    Apikeys {
        #[command(subcommand)]
        verb: ApiKeysVerb,
    },
    /// Ask the server whether it works; fails if it does not
    #[command(after_help = "\
Example:
  meshcontrol health")]
    Health,
    /// Show the version of this program
    #[command(after_help = "\
Example:
  meshcontrol version --output json")]
    Version,
    /// Check the configuration and tell everything that is wrong with it
    #[command(after_help = "\
Examples:
  meshcontrol configtest --config config.yaml
  meshcontrol configtest --config relay.yaml --derp")]
    Configtest {
        /// Check it for `meshcontrol derp` instead of `meshcontrol serve`
        #[arg(long)]
        derp: bool,
    },
    /// Make things that a server needs
    #[command(
        visible_alias = "gen",
        after_help = "\
Example:
  meshcontrol generate private-key"
    )]
    Generate {
        #[command(subcommand)]
        verb: GenerateVerb,
    },
    /// Print a script that completes commands in a shell
    #[command(after_help = "\
Examples:
  meshcontrol completion bash > /etc/bash_completion.d/meshcontrol
  meshcontrol completion fish > ~/.config/fish/completions/meshcontrol.fish")]
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// What `serve` takes beside its configuration.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address and port for clients and the API, instead of `listen_addr`
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
}

impl ServeArgs {
    pub(crate) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let overrides = self.listen.map(|value| Override {
            flag: "--listen".to_owned(),
            path: "listen_addr".to_owned(),
            value,
        });
        let Loaded { config, warnings, data_dir, settings } =
            session.load(overrides.into_iter().collect())?;
        crate::logs::start(&config.log);
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        crate::serve::run(config, settings, &data_dir).await
    }
}

/// Prints the completion script of a shell.
pub(crate) fn complete(shell: Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "meshcontrol", &mut script);
    mesh_cli::print(&script)
}

#[cfg(test)]
mod tests;
