//! `meshnode up`, `meshnode down` and `meshnode logout`.

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use mesh_cli::Output;
use mesh_node::RELAY_WAIT;
use mesh_node::loopback::{BackendState, Status};
use serde_json::json;
use tokio::time::sleep;

use crate::client::{LocalClient, Unreachable};
use crate::daemon;
use crate::settings::Settings;
use crate::state_dir::StateDir;

/// How often a daemon that is starting or ending is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// After how long a person is told what is being waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The variable by which the daemon in the background learns the auth key: a command line is there for all to see.
const AUTH_KEY_VARIABLE: &str = "TS_AUTHKEY";

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    settings: Settings,
    /// The key to join with, or `file:` and a path; without one, somebody has to log in
    #[arg(long, alias = "authkey", value_name = "KEY", env = AUTH_KEY_VARIABLE, hide_env_values = true)]
    auth_key: Option<String>,
    /// Forget the settings of before
    #[arg(long)]
    reset: bool,
    /// Be the daemon, and log to standard error: for service managers
    #[arg(long)]
    foreground: bool,
}

impl UpArgs {
    pub(crate) async fn run(
        self,
        state_dir: &StateDir,
        client: &LocalClient,
        output: Output,
    ) -> anyhow::Result<()> {
        let remembered = Settings::load(state_dir)?;
        let kept = if self.reset { Settings::default() } else { remembered.clone() };
        let settings = self.settings.or(kept);
        if settings.login_server.is_none() {
            bail!("no control server is known: name it once with --login-server URL");
        }
        settings.check()?;
        let auth_key = self.auth_key.map(read_auth_key).transpose()?;
        if self.foreground {
            return daemon::run(state_dir, &settings, auth_key).await;
        }
        let mut child = match client.status(false).await {
            Ok(status) => {
                let needs_key = status.backend_state == BackendState::NeedsLogin;
                if settings != remembered || (needs_key && auth_key.is_some()) {
                    bail!(
                        "meshnode runs, and was told otherwise: `meshnode down`, then this again"
                    );
                }
                None
            }
            Err(error) if error.is::<Unreachable>() => {
                settings.save(state_dir)?;
                Some(spawn(state_dir, auth_key)?)
            }
            Err(error) => return Err(error),
        };
        let status = wait_until_up(client, child.as_mut(), state_dir, &settings).await?;
        output.value(&status, || summary(&status))
    }
}

/// Ends the daemon, if one runs, and waits until it has.
pub(crate) async fn down(client: &LocalClient, output: Output) -> anyhow::Result<()> {
    match client.shutdown().await {
        Err(error) if error.is::<Unreachable>() => {
            return output.value(&json!({ "ended": false }), || "No meshnode runs".to_owned());
        }
        ended => ended?,
    }
    wait_until_down(client).await;
    output.value(&json!({ "ended": true }), || "Down".to_owned())
}

/// Has the node leave the tailnet, and ends the daemon, which has nothing more to do.
pub(crate) async fn logout(client: &LocalClient, output: Output) -> anyhow::Result<()> {
    client.logout().await?;
    client.shutdown().await?;
    wait_until_down(client).await;
    output.value(&json!({ "ended": true }), || "Logged out; `meshnode up` joins anew".to_owned())
}

async fn wait_until_down(client: &LocalClient) {
    while !matches!(client.status(false).await, Err(error) if error.is::<Unreachable>()) {
        sleep(LOOK_EVERY).await;
    }
}

/// The key itself, or what is in the file that is named.
fn read_auth_key(text: String) -> anyhow::Result<String> {
    let Some(path) = text.strip_prefix("file:") else { return Ok(text) };
    let key =
        fs::read_to_string(path).with_context(|| format!("cannot read the auth key in {path}"))?;
    Ok(key.trim().to_owned())
}

/// Starts a daemon that outlives this process.
fn spawn(state_dir: &StateDir, auth_key: Option<String>) -> anyhow::Result<Child> {
    let log =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(state_dir.log());
    let log = log.with_context(|| format!("cannot write {}", state_dir.log().display()))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--state-dir").arg(state_dir.path()).args(["up", "--foreground"]);
    command.envs(auth_key.map(|key| (AUTH_KEY_VARIABLE, key)));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // Keys that end a program in this terminal are not meant for it.
    command.process_group(0);
    command.spawn().context("cannot start the daemon")
}

/// Waits until the node has joined, and tells a person what there is to do for that.
///
/// # Errors
/// When the daemon ends, or the control server refuses the node; a daemon of our own is then ended.
async fn wait_until_up(
    client: &LocalClient,
    mut child: Option<&mut Child>,
    state_dir: &StateDir,
    settings: &Settings,
) -> anyhow::Result<Status> {
    let began_at = Instant::now();
    let (mut told, mut is_patient, mut joined_at) = (String::new(), true, None);
    loop {
        if let Some(child) = &mut child
            && child.try_wait()?.is_some()
        {
            bail!("{}", last_words(state_dir));
        }
        match client.status(false).await {
            Ok(status) if status.backend_state == BackendState::Running => {
                let joined_at = *joined_at.get_or_insert_with(Instant::now);
                if has_relay(&status) || joined_at.elapsed() > RELAY_WAIT {
                    return Ok(status);
                }
            }
            Ok(status) if !status.health.is_empty() => {
                if child.is_some() {
                    client.shutdown().await?;
                }
                bail!("{}", status.health.join("; "));
            }
            Ok(status) => {
                let news = what_to_do(&status);
                if news != told {
                    mesh_cli::tell(&news);
                    told = news;
                }
            }
            Err(error) if error.is::<Unreachable>() && child.is_some() => {}
            Err(error) => return Err(error),
        }
        if is_patient && told.is_empty() && began_at.elapsed() > PATIENCE {
            is_patient = false;
            let server = settings.login_server.as_deref().unwrap_or_default();
            mesh_cli::tell(&format!(
                "Still waiting for {server}. Why may be in {}. Ctrl-C ends the waiting, not the daemon.",
                state_dir.log().display()
            ));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Whether peers can reach the node through its home relay.
fn has_relay(status: &Status) -> bool {
    status.self_node.as_ref().is_some_and(|node| !node.relay.is_empty())
}

/// What somebody has to do before the node can join, if anything.
fn what_to_do(status: &Status) -> String {
    match status.backend_state {
        BackendState::NeedsLogin => format!("To log in, visit:\n\n  {}\n", status.auth_url),
        BackendState::NeedsMachineAuth => {
            "An admin of the tailnet has to approve this node".to_owned()
        }
        BackendState::Starting | BackendState::Running => String::new(),
    }
}

/// Why a daemon in the background has ended.
fn last_words(state_dir: &StateDir) -> String {
    let log = fs::read_to_string(state_dir.log()).unwrap_or_default();
    let last = log.lines().next_back().unwrap_or("it did not say why");
    last.strip_prefix("Error: ").unwrap_or(last).to_owned()
}

fn summary(status: &Status) -> String {
    let name = status.self_node.as_ref().map_or("", |node| node.dns_name.trim_end_matches('.'));
    let addresses: Vec<String> = status.tailscale_ips.iter().map(ToString::to_string).collect();
    format!("Up as {name} ({})", addresses.join(", "))
}
