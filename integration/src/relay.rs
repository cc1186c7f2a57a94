//! Relays by themselves, beside the server: ours, and Go's.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::environment;
use crate::eventually::eventually;
use crate::gate::Gate;
use crate::lab::Lab;
use crate::ports;
use crate::server::{DIRECTORY, Server, Setup, signal};

/// The DERP map of a server whose relays are all by themselves, in its data directory.
const MAP_FILE: &str = "derp.yaml";

/// The key of every mesh: 64 hexadecimal digits.
const MESH_KEY: &str = "5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed";

/// How a pin of a certificate begins, and how long it is.
const PIN: &str = "sha256-raw:";
const PIN_BYTES: usize = PIN.len() + 64;

/// How long a start may take until the relay listens, and a stop, which lets clients go one after the other.
const START_MAX: Duration = Duration::from_secs(10);
const STOP_MAX: Duration = Duration::from_secs(10);

/// Whose relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// `meshcontrol derp`.
    Ours,
    /// Go's `derper`.
    Go,
}

/// A relay by itself. Its certificate is its own, which clients pin.
#[derive(Debug)]
pub struct Relay<'a> {
    lab: &'a Lab,
    name: String,
    maker: Maker,
    region: u16,
    directory: PathBuf,
    listen: SocketAddr,
    stun: SocketAddr,
    environment: Vec<(&'static str, String)>,
    arguments: Vec<String>,
    /// Where clients are told that it is, if not at its own address.
    gate: Option<Gate>,
    process: Mutex<Option<Child>>,
}

impl<'a> Relay<'a> {
    /// A relay of a region that serves everybody, not started yet.
    pub fn new(lab: &'a Lab, name: &str, maker: Maker, region: u16) -> Result<Self> {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut relay = Self {
            lab,
            name: name.to_owned(),
            maker,
            region,
            directory: lab.directory(name)?,
            listen: local(ports::free()?),
            stun: local(ports::free()?),
            environment: Vec::new(),
            arguments: Vec::new(),
            gate: None,
            process: Mutex::default(),
        };
        match maker {
            Maker::Ours => relay.set_up_ours(),
            Maker::Go => relay.set_up_go(),
        }
        Ok(relay)
    }

    fn set_up_ours(&mut self) {
        let settings = [
            ("MESHCONTROL_DATA_DIR", self.directory.display().to_string()),
            ("MESHCONTROL_DERP_SERVER_HOSTNAME", self.listen.ip().to_string()),
            ("MESHCONTROL_DERP_SERVER_LISTEN_ADDR", self.listen.to_string()),
            ("MESHCONTROL_DERP_SERVER_STUN_LISTEN_ADDR", self.stun.to_string()),
            ("MESHCONTROL_DERP_SERVER_VERIFY_CLIENTS", "false".to_owned()),
            ("MESHCONTROL_METRICS_LISTEN_ADDR", String::new()),
        ];
        self.environment.extend(settings);
        self.arguments.push("derp".to_owned());
    }

    /// It makes a certificate for an address by itself.
    fn set_up_go(&mut self) {
        let directory = self.directory.display();
        self.arguments.extend([
            "-certmode=manual".to_owned(),
            format!("-certdir={directory}"),
            format!("-c={directory}/derper.json"),
            format!("-hostname={}", self.listen.ip()),
            format!("-a={}", self.listen),
            format!("-stun-port={}", self.stun.port()),
            "-http-port=-1".to_owned(),
        ]);
    }

    /// Has it serve the nodes of a server alone, whose list it follows.
    pub async fn follow(&mut self, server: &Server<'_>) -> Result<()> {
        let path = self.directory.join("api.key");
        fs::write(&path, server.cli(&["apikeys", "create"]).await?)?;
        self.environment.retain(|(name, _)| !name.ends_with("VERIFY_CLIENTS"));
        self.environment.extend([
            ("MESHCONTROL_DERP_SERVER_VERIFY_CONTROL_URL", server.url()),
            ("MESHCONTROL_DERP_SERVER_VERIFY_API_KEY_PATH", path.display().to_string()),
        ]);
        Ok(())
    }

    /// Makes a mesh of it and another relay, which has run before and so has a certificate.
    pub fn mesh_with(&mut self, other: &Relay<'_>) -> Result<()> {
        let key = self.directory.join("mesh.key");
        fs::write(&key, MESH_KEY)?;
        let key = key.display().to_string();
        match self.maker {
            Maker::Ours => self.environment.extend([
                ("MESHCONTROL_DERP_SERVER_MESH_KEY_PATH", key),
                ("MESHCONTROL_DERP_SERVER_MESH_WITH", format!("{} {}", other.listen, other.pin()?)),
            ]),
            Maker::Go => {
                let certificate = other.directory.join("derp_certificate.pem");
                self.environment.push(("SSL_CERT_FILE", certificate.display().to_string()));
                self.arguments.push(format!("-mesh-psk-file={key}"));
                self.arguments.push(format!("-mesh-with={}", other.listen));
            }
        }
        Ok(())
    }

    /// Has clients go through a gate from here on, which can be shut to new ones.
    pub async fn put_gate(&mut self) -> Result<()> {
        self.gate = Some(Gate::open(self.listen).await?);
        Ok(())
    }

    /// Lets nobody else come to it; who is there stays.
    pub fn shut_gate(&mut self) {
        self.gate.iter_mut().for_each(Gate::shut);
    }

    /// Starts the process, again on the same ports and data, and waits until it listens.
    pub async fn launch(&self) -> Result<()> {
        let program = environment::required(match self.maker {
            Maker::Ours => environment::BINARY,
            Maker::Go => environment::DERPER,
        })?;
        let log = File::options().create(true).append(true).open(self.lab.log(&self.name))?;
        let mut command = Command::new(&program);
        command.args(&self.arguments).kill_on_drop(true);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut process = command.spawn().with_context(|| format!("starting {program}"))?;
        eventually(START_MAX, &format!("{} listens", self.name), async || {
            if let Some(status) = process.try_wait()? {
                bail!("{} ended: {status}", self.name);
            }
            TcpStream::connect(self.listen).await?;
            self.pin().map(drop)
        })
        .await?;
        *self.process.lock().await = Some(process);
        Ok(())
    }

    /// Asks the process to stop and waits for it. Fails unless ours ends cleanly.
    pub async fn stop(&self) -> Result<()> {
        let process = self.process.lock().await.take();
        let mut process = process.with_context(|| format!("{} is not running", self.name))?;
        signal(&process, "TERM").await?;
        let status = timeout(STOP_MAX, process.wait())
            .await
            .with_context(|| format!("{} does not stop within {STOP_MAX:?}", self.name))??;
        ensure!(status.success() || self.maker == Maker::Go, "{} stopped: {status}", self.name);
        Ok(())
    }

    /// What clients pin, which either relay says when it starts.
    pub fn pin(&self) -> Result<String> {
        let told = fs::read_to_string(self.lab.log(&self.name))?;
        let from = told.find(PIN).with_context(|| format!("{} tells no pin", self.name))?;
        let pin = told.get(from..from + PIN_BYTES).context("a pin that is cut off")?;
        Ok(pin.to_owned())
    }

    /// The port of its TLS, for clients.
    pub fn port(&self) -> u16 {
        self.gate.as_ref().map_or(self.listen.port(), Gate::port)
    }

    /// What a DERP map says of it.
    fn describe(&self, map: &mut String) -> Result<()> {
        let Self { name, region, .. } = self;
        let (pin, port, stun) = (self.pin()?, self.port(), self.stun.port());
        writeln!(
            map,
            "      - {{name: {name}, regionid: {region}, hostname: 127.0.0.1, ipv4: 127.0.0.1, ipv6: none, \
             certname: \"{pin}\", derpport: {port}, stunport: {stun}}}"
        )?;
        Ok(())
    }
}

impl<'a> Server<'a> {
    /// Starts a server that is no relay itself and has these in its DERP map, by region. Returns a reusable key with it.
    pub async fn start_beside(lab: &'a Lab, regions: &[&[&Relay<'_>]]) -> Result<(Self, String)> {
        write_derp_map(lab, regions)?;
        let server = Self::start(lab, Setup { relays_apart: true, ..Setup::default() }).await?;
        server.create_user("alice").await?;
        let key = server.preauth_key("alice", &["--reusable"]).await?;
        Ok((server, key))
    }
}

/// Writes the DERP map of a server that has no relay itself: before it starts, or while it runs, which it notices by
/// itself. Each region is its relays in their order; clients like the last region best.
pub fn write_derp_map(lab: &Lab, regions: &[&[&Relay<'_>]]) -> Result<()> {
    let mut map = "regions:\n".to_owned();
    for region in regions {
        let id = region.first().context("a region without relays")?.region;
        writeln!(map, "  {id}:\n    regionid: {id}\n    regioncode: region-{id}")?;
        writeln!(map, "    regionname: region {id}\n    nodes:")?;
        region.iter().try_for_each(|relay| relay.describe(&mut map))?;
    }
    if let Some(best) = regions.last().and_then(|region| region.first()) {
        writeln!(map, "homeparams:\n  regionscore:\n    {}: 0.01", best.region)?;
    }
    let path = map_path(&lab.directory(DIRECTORY)?);
    // In one step, for the server may read it at any time.
    let fresh = path.with_extension("fresh");
    fs::write(&fresh, map)?;
    Ok(fs::rename(fresh, path)?)
}

/// Where the DERP map is of the server with this data directory.
pub(crate) fn map_path(data: &Path) -> PathBuf {
    data.join(MAP_FILE)
}
