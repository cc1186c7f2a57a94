//! The server under test: the built binary in a directory of its own, and its command line.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use mesh_client::Dialer;
use mesh_keys::NodePublic;
use rustls::RootCertStore;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::authority::Authority;
use crate::environment;
use crate::eventually::eventually;
use crate::lab::Lab;
use crate::log::{self, LogLine};
use crate::outage::{self, Outage};
use crate::ports;
use crate::relay;
use crate::usage::Usage;

/// The name of the server's log in the lab.
pub(crate) const LOG: &str = "server";
/// The name of the server's directory in the lab.
pub(crate) const DIRECTORY: &str = "server";
/// The domain below which nodes have their names, by default.
pub(crate) const BASE_DOMAIN: &str = "tailnet.internal";

/// The file of a server whose policy is a file, in its data directory.
const POLICY_FILE: &str = "policy.hujson";

/// How long a start may take until the server listens.
const START_MAX: Duration = Duration::from_secs(10);
/// How much longer for each synthetic node, and how long it may take to put one in.
const SYNTHETIC_MAX: Duration = Duration::from_micros(500);
/// How long an orderly stop may take.
const STOP_MAX: Duration = Duration::from_secs(10);
/// How long a command line verb may take.
const CLI_MAX: Duration = Duration::from_secs(10);

/// How a server is set up. The default is what a server has without configuration, on loopback.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup {
    /// It has a certificate, and clients trust its authority.
    pub tls: bool,
    /// Its DERP map tells clients not to check the relay's certificate, for the client that cannot pin one.
    pub unchecked_relay: bool,
    /// It is no relay itself: its DERP map is what [`crate::write_derp_map`] wrote last, also before it starts.
    pub relays_apart: bool,
    /// Its policy is a file, with this text at first; otherwise the policy is in the database.
    pub policy_file: Option<&'static str>,
    /// How many synthetic nodes are in its tailnet before it first starts; all of them are offline for ever.
    pub synthetic_nodes: u32,
}

/// A server under test.
#[derive(Debug)]
pub struct Server<'a> {
    pub(crate) lab: &'a Lab,
    binary: String,
    data: PathBuf,
    listen: SocketAddr,
    relay: SocketAddr,
    environment: Vec<(&'static str, String)>,
    authority: Option<Authority>,
    synthetic_nodes: u32,
    process: Mutex<Option<Child>>,
}

/// How a server ended that refused to start.
#[derive(Debug)]
pub struct RefusedStart {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it said on standard error.
    pub told: String,
}

/// A node as `nodes list -o json` shows it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRecord {
    /// Decimal.
    pub id: String,
    /// `nodekey:...`
    pub node_key: String,
    /// The name in the tailnet.
    pub given_name: String,
    /// IPv4 and IPv6.
    pub ip_addresses: Vec<IpAddr>,
    /// Whether it has a map stream.
    pub online: bool,
    /// Its tags.
    pub tags: Vec<String>,
    /// Routes that it offers to carry.
    pub available_routes: Vec<String>,
    /// Routes that it may carry.
    pub approved_routes: Vec<String>,
    /// Routes that it carries.
    pub subnet_routes: Vec<String>,
}

impl<'a> Server<'a> {
    /// Starts a server in the lab and waits until it listens.
    pub async fn start(lab: &'a Lab, setup: Setup) -> Result<Self> {
        let server = Self::prepare(lab, setup)?;
        if setup.synthetic_nodes > 0 {
            server.fill(setup.synthetic_nodes).await?;
        }
        server.launch().await?;
        Ok(server)
    }

    fn prepare(lab: &'a Lab, setup: Setup) -> Result<Self> {
        let data = lab.directory(DIRECTORY)?;
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listen = local(ports::free()?);
        let (relay, stun) = (local(ports::free()?), local(ports::free()?));
        let scheme = if setup.tls { "https" } else { "http" };
        let mut environment = vec![
            ("MESHCONTROL_DATA_DIR", data.display().to_string()),
            ("MESHCONTROL_SERVER_URL", format!("{scheme}://{listen}")),
            ("MESHCONTROL_DERP_SERVER_LISTEN_ADDR", relay.to_string()),
            ("MESHCONTROL_DERP_SERVER_STUN_LISTEN_ADDR", stun.to_string()),
            ("MESHCONTROL_METRICS_LISTEN_ADDR", local(0).to_string()),
            ("MESHCONTROL_LOG_FORMAT", "json".to_owned()),
        ];
        environment.extend(lab.database.environment());
        let authority = setup.tls.then(|| Authority::create(&data)).transpose()?;
        if let Some(authority) = &authority {
            environment
                .push(("MESHCONTROL_TLS_CERT_PATH", authority.certificate.display().to_string()));
            environment.push(("MESHCONTROL_TLS_KEY_PATH", authority.key.display().to_string()));
        }
        if setup.unchecked_relay {
            let map = data.join("derp.yaml");
            fs::write(&map, unchecked_derp_map(relay.port(), stun.port()))?;
            environment.push(("MESHCONTROL_DERP_PATHS", map.display().to_string()));
            let automatic = "MESHCONTROL_DERP_SERVER_AUTOMATICALLY_ADD_EMBEDDED_DERP_REGION";
            environment.push((automatic, "false".to_owned()));
        }
        if setup.relays_apart {
            let map = relay::map_path(&data).display().to_string();
            environment.push(("MESHCONTROL_DERP_PATHS", map));
            environment.push(("MESHCONTROL_DERP_SERVER_ENABLED", "false".to_owned()));
        }
        if let Some(text) = setup.policy_file {
            let path = data.join(POLICY_FILE);
            fs::write(&path, text)?;
            environment.push(("MESHCONTROL_POLICY_PATH", path.display().to_string()));
        }
        Ok(Self {
            lab,
            binary: environment::required(environment::BINARY)?,
            data,
            listen,
            relay,
            environment,
            authority,
            synthetic_nodes: setup.synthetic_nodes,
            process: Mutex::default(),
        })
    }

    /// Puts synthetic nodes into the database, before the server has seen it.
    async fn fill(&self, nodes: u32) -> Result<()> {
        let mut command = Command::new(environment::required(environment::GIANT)?);
        command.arg(self.lab.database.location(&self.data)).args(["--nodes", &nodes.to_string()]);
        let deadline = START_MAX + SYNTHETIC_MAX * nodes;
        let output = timeout(deadline, command.stdin(Stdio::null()).kill_on_drop(true).output());
        let output = output.await.with_context(|| format!("{nodes} nodes take too long"))??;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "no synthetic nodes: {}", told.trim());
        Ok(())
    }

    /// Starts the process, again on the same ports and data, and waits until it listens.
    pub async fn launch(&self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.lab.log(LOG))?;
        let mut command = self.serve_command();
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut process = command.spawn().with_context(|| format!("starting {}", self.binary))?;
        let deadline = START_MAX + SYNTHETIC_MAX * self.synthetic_nodes;
        eventually(deadline, "the server listens", async || {
            if let Some(status) = process.try_wait()? {
                bail!("the server ended: {status}");
            }
            TcpStream::connect(self.listen).await?;
            Ok(())
        })
        .await?;
        *self.process.lock().await = Some(process);
        Ok(())
    }

    /// Starts the process, which must end by itself instead of listening, and returns what it said.
    pub async fn refuses_to_start(&self) -> Result<RefusedStart> {
        let output = timeout(START_MAX, self.serve_command().stdin(Stdio::null()).output());
        let output = output.await.context("the server started")??;
        ensure!(!output.status.success(), "the server ended as if all were well");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(RefusedStart { code: output.status.code(), told })
    }

    /// Asks the process to stop and waits for it. Fails unless it ends cleanly.
    pub async fn stop(&self) -> Result<()> {
        let mut process = self.process.lock().await.take().context("the server is not running")?;
        signal(&process, "TERM").await?;
        let status = timeout(STOP_MAX, process.wait())
            .await
            .with_context(|| format!("the server does not stop within {STOP_MAX:?}"))??;
        ensure!(status.success(), "the server stopped with {status}");
        Ok(())
    }

    /// Kills the process, as a crash would end it.
    pub async fn kill(&self) -> Result<()> {
        let mut process = self.process.lock().await.take().context("the server is not running")?;
        process.kill().await.context("the server cannot be killed")
    }

    /// Where clients log in.
    pub fn url(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.listen)
    }

    /// Where its own relay listens.
    pub fn relay_port(&self) -> u16 {
        self.relay.port()
    }

    /// How clients of our own reach it without TLS.
    pub fn dialer(&self) -> Result<Dialer> {
        Ok(Dialer::new(self.url().parse()?, RootCertStore::empty()))
    }

    /// The file with the authority that clients must trust.
    pub(crate) fn root(&self) -> Option<String> {
        Some(self.authority.as_ref()?.root.display().to_string())
    }

    fn serve_command(&self) -> Command {
        let mut command = self.command();
        command
            .args(["serve", "--listen", &self.listen.to_string()])
            .arg("--data-dir")
            .arg(&self.data);
        command
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.kill_on_drop(true);
        command
    }

    /// Runs a verb of the command line and returns what it prints.
    pub async fn cli(&self, args: &[&str]) -> Result<String> {
        let spoken = args.join(" ");
        let run = self.command().args(args).stdin(Stdio::null()).output();
        let output = timeout(CLI_MAX, run).await.with_context(|| format!("{spoken} hangs"))??;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "meshcontrol {spoken}: {}: {}",
            output.status,
            told.trim()
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Runs a verb with `-o json` and reads what it prints.
    pub async fn cli_json<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let text = self.cli(&[args, &["-o", "json"]].concat()).await?;
        serde_json::from_str(&text).with_context(|| format!("{}: {text}", args.join(" ")))
    }

    /// Creates a user.
    pub async fn create_user(&self, name: &str) -> Result<()> {
        self.cli(&["users", "create", name]).await?;
        Ok(())
    }

    /// Mints a preauth key for a user, with more flags of `preauthkeys create`.
    pub async fn preauth_key(&self, user: &str, flags: &[&str]) -> Result<String> {
        self.cli(&[&["preauthkeys", "create", "--user", user], flags].concat()).await
    }

    /// Mints a reusable preauth key that makes nodes with a tag and without a user.
    pub async fn tagged_key(&self, tag: &str) -> Result<String> {
        self.cli(&["preauthkeys", "create", "--reusable", "--tags", tag]).await
    }

    /// Puts a policy in force, in the database.
    pub async fn set_policy(&self, text: &str) -> Result<()> {
        let path = self.data.join("policy-to-set.hujson");
        fs::write(&path, text)?;
        let path = path.to_str().context("invariant: the lab's directory is UTF-8")?;
        self.cli(&["policy", "set", "--file", path]).await?;
        Ok(())
    }

    /// Writes the policy file of a server that was set up with one. It notices by itself.
    pub fn write_policy_file(&self, text: &str) -> Result<()> {
        Ok(fs::write(self.data.join(POLICY_FILE), text)?)
    }

    /// Sends the signal that has it read its policy file again at once.
    pub async fn hang_up(&self) -> Result<()> {
        let process = self.process.lock().await;
        signal(process.as_ref().context("the server is not running")?, "HUP").await
    }

    /// Replaces the routes that a node may carry.
    pub async fn approve_routes(&self, node: &str, routes: &[&str]) -> Result<()> {
        let id = self.node(node).await?.id;
        let routes = routes.join(",");
        self.cli(&["nodes", "approve-routes", "--identifier", &id, "--routes", &routes]).await?;
        Ok(())
    }

    /// All nodes.
    pub async fn nodes(&self) -> Result<Vec<NodeRecord>> {
        self.cli_json(&["nodes", "list"]).await
    }

    /// The node with this name in the tailnet.
    pub async fn node(&self, given_name: &str) -> Result<NodeRecord> {
        let nodes = self.nodes().await?;
        let names: Vec<_> = nodes.iter().map(|node| node.given_name.clone()).collect();
        let found = nodes.into_iter().find(|node| node.given_name == given_name);
        found.with_context(|| format!("no node {given_name}, only {names:?}"))
    }

    /// The node with this key.
    pub async fn node_of(&self, key: &NodePublic) -> Result<NodeRecord> {
        let key = key.to_string();
        let found = self.nodes().await?.into_iter().find(|node| node.node_key == key);
        found.with_context(|| format!("no node has {key}"))
    }

    /// Fails unless all who were let in are there, and no address twice.
    pub async fn check_kept(&self, let_in: &BTreeSet<NodePublic>) -> Result<()> {
        let nodes = self.nodes().await?;
        let kept: BTreeSet<_> = nodes.iter().map(|node| &*node.node_key).collect();
        let keys = let_in.iter().map(ToString::to_string);
        let lost: Vec<_> = keys.filter(|key| !kept.contains(&**key)).collect();
        ensure!(lost.is_empty(), "{} were let in and are lost: {lost:?}", lost.len());
        let mut addresses = BTreeSet::new();
        let twice =
            nodes.iter().flat_map(|node| &node.ip_addresses).find(|it| !addresses.insert(**it));
        ensure!(twice.is_none(), "an address is there twice: {twice:?}");
        Ok(())
    }

    /// Stops the database under the running process.
    pub fn stop_database(&self) -> Result<Outage> {
        Outage::begin(&self.lab.database, &self.database_file())
    }

    /// Has the Postgres under the running process crash, from which it recovers by itself.
    pub fn crash_database(&self) -> Result<()> {
        outage::crash(&self.lab.database)
    }

    /// Has SQLite check its file from beginning to end.
    pub async fn check_database_file(&self) -> Result<()> {
        let check = Command::new("sqlite3")
            .arg(self.database_file())
            .arg("PRAGMA integrity_check")
            .output();
        let output = check.await.context("sqlite3 is not installed: apt-get install sqlite3")?;
        let told = String::from_utf8_lossy(&output.stdout);
        ensure!(told.trim() == "ok", "the database is damaged: {told}");
        Ok(())
    }

    fn database_file(&self) -> PathBuf {
        self.data.join("db.sqlite")
    }

    /// What the running process has used so far.
    pub async fn usage(&self) -> Result<Usage> {
        let process = self.process.lock().await;
        let pid = process.as_ref().and_then(Child::id).context("the server is not running")?;
        Usage::of(pid)
    }

    /// Everything it has logged, over all its starts.
    pub fn log(&self) -> Result<Vec<LogLine>> {
        log::read(&self.lab.log(LOG))
    }

    /// How often a node has opened its map stream.
    pub fn map_streams_opened(&self, node: &NodeRecord) -> Result<usize> {
        let is_opening = |line: &&LogLine| {
            line.message == "map stream opened"
                && line.field("node.id").as_deref() == Some(node.id.as_str())
        };
        Ok(self.log()?.iter().filter(is_opening).count())
    }
}

pub(crate) async fn signal(process: &Child, name: &str) -> Result<()> {
    let pid = process.id().context("the server has ended by itself")?;
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().await?;
    ensure!(sent.success(), "the server cannot be signalled");
    Ok(())
}

/// A DERP map with the server's own relay, whose certificate clients shall not check.
fn unchecked_derp_map(derp_port: u16, stun_port: u16) -> String {
    format!(
        "
regions:
  999:
    regionid: 999
    regioncode: unchecked
    regionname: unchecked relay
    nodes:
      - name: 999a
        regionid: 999
        hostname: 127.0.0.1
        ipv4: 127.0.0.1
        ipv6: none
        derpport: {derp_port}
        stunport: {stun_port}
        insecurefortests: true
"
    )
}
