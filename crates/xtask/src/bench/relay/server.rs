//! Relays under test: in a directory of their own, on a core of their own, gone when dropped.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tempfile::TempDir;

use super::super::e2e::server::listen_port;
use super::{Origin, RELAY_CORE, Side};
use crate::command::ending_with_us;

/// How long a relay may take until it answers.
const START_MAX: Duration = Duration::from_secs(30);

/// How often it is looked whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// As whom relays are spoken to; Go's makes a certificate for an address by itself.
const HOST: &str = "127.0.0.1";

/// The key of the mesh of a bench: 64 hexadecimal digits.
const MESH_KEY: &str = "5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed";

/// One relay or a mesh of some.
#[derive(Debug)]
pub(super) struct Relays {
    directory: TempDir,
    addrs: Vec<SocketAddr>,
    children: Vec<Child>,
    /// By which relays of ours know each other.
    pin: Option<String>,
}

impl Relays {
    /// Starts as many relays, and waits until they answer.
    ///
    /// # Errors
    /// One of them does not; its log is part of the message.
    pub(super) fn start(side: &Side, count: usize) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("meshcontrol-relay-").tempdir()?;
        let mut relays = Self { directory, addrs: Vec::new(), children: Vec::new(), pin: None };
        if let Origin::Running(addr) = side.origin {
            relays.addrs.push(addr);
            return Ok(relays);
        }
        for _ in 0..count {
            relays.addrs.push(format!("{HOST}:{}", listen_port()?).parse()?);
        }
        if count > 1 && matches!(side.origin, Origin::Meshcontrol(_)) {
            relays.share_certificate(side)?;
        }
        for number in 0..count {
            let command = relays.command(side, number)?;
            relays.children.push(on_core(RELAY_CORE, command)?);
            relays.wait_for(number)?;
        }
        Ok(relays)
    }

    /// What `derpload` must know of them.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut words = vec!["--host".to_owned(), HOST.to_owned()];
        for addr in &self.addrs {
            words.extend(["--relay".to_owned(), addr.to_string()]);
        }
        for child in &self.children {
            words.extend(["--pid".to_owned(), child.id().to_string()]);
        }
        words
    }

    /// The end of what they logged.
    pub(super) fn log(&self) -> String {
        const LOG_BYTES_MAX: usize = 4000;
        let log = fs::read(self.path("log")).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_BYTES_MAX)..]).into_owned()
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn command(&self, side: &Side, number: usize) -> Result<Command> {
        let log = File::options().create(true).append(true).open(self.path("log"))?;
        let words = match &side.origin {
            Origin::Meshcontrol(binary) => self.meshcontrol(binary, number)?,
            Origin::Derper(Some(binary)) => self.derper(binary, number)?,
            Origin::Derper(None) | Origin::Running(_) => bail!("{} cannot be started", side.name),
        };
        let mut words = ending_with_us("KILL").into_iter().chain(words);
        let mut command = Command::new(words.next().context("no command")?);
        command.args(words).stdout(log.try_clone()?).stderr(log);
        // Certificates of the other relays of the mesh, for Go.
        command.env("SSL_CERT_FILE", self.path(&format!("{HOST}.crt")));
        Ok(command)
    }

    fn meshcontrol(&self, binary: &Path, number: usize) -> Result<Vec<String>> {
        let addr = self.addrs[number];
        let mut config = format!(
            "metrics_listen_addr: \"\"\nderp:\n  server:\n    hostname: {HOST}\n    verify_clients: false\n    \
             listen_addr: {addr}\n    stun_listen_addr: \"\"\n"
        );
        if let Some(pin) = &self.pin {
            let key = self.path("mesh.key");
            fs::write(&key, MESH_KEY)?;
            write!(config, "    mesh:\n      key_path: {key}\n      with:\n")?;
            for other in self.addrs.iter().filter(|other| **other != addr) {
                writeln!(config, "        - {other} {pin}")?;
            }
        }
        let path = self.path(&format!("meshcontrol-{number}.yaml"));
        fs::write(&path, config)?;
        let words = [&binary.display().to_string(), "derp", "--config", &path, "--data-dir"];
        Ok(words.into_iter().map(str::to_owned).chain([self.data(number)]).collect())
    }

    /// Where a relay of ours keeps its key and its certificate.
    fn data(&self, number: usize) -> String {
        self.path(&format!("data-{number}"))
    }

    /// Has one of ours make a certificate for all, by whose pin they will know each other.
    fn share_certificate(&mut self, side: &Side) -> Result<()> {
        const CERTIFICATE: &str = "derp_certificate.pem";
        let mut first = self.command(side, 0)?.spawn()?;
        let made = Path::new(&self.data(0)).join(CERTIFICATE);
        let deadline = Instant::now() + START_MAX;
        self.pin = loop {
            if let Some(pin) = self.log().split_whitespace().find_map(pin_in) {
                break Some(pin);
            }
            if Instant::now() > deadline {
                bail!("the relay does not start:\n{}", self.log());
            }
            sleep(LOOK_EVERY);
        };
        first.kill()?;
        first.wait()?;
        for number in 1..self.addrs.len() {
            fs::create_dir_all(self.data(number))?;
            fs::copy(&made, Path::new(&self.data(number)).join(CERTIFICATE))?;
        }
        Ok(())
    }

    fn derper(&self, binary: &Path, number: usize) -> Result<Vec<String>> {
        let mut words: Vec<_> = [
            binary.display().to_string().as_str(),
            "-certmode=manual",
            &format!("-certdir={}", self.directory.path().display()),
            &format!("-hostname={HOST}"),
            &format!("-a={}", self.addrs[number]),
            "-stun=false",
            "-http-port=-1",
            &format!("-c={}", self.path(&format!("derper-{number}.json"))),
        ]
        .map(str::to_owned)
        .to_vec();
        if self.addrs.len() > 1 {
            fs::write(self.path("mesh.key"), MESH_KEY)?;
            let others = self.addrs.iter().filter(|addr| **addr != self.addrs[number]);
            let others: Vec<_> = others.map(SocketAddr::to_string).collect();
            words.push(format!("-mesh-psk-file={}", self.path("mesh.key")));
            words.push(format!("-mesh-with={}", others.join(",")));
        }
        Ok(words)
    }

    fn wait_for(&mut self, number: usize) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(self.addrs[number]).is_err() {
            let ended = self.children[number].try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                bail!("the relay does not start:\n{}", self.log());
            }
            sleep(LOOK_EVERY);
        }
        Ok(())
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The pin of a certificate, as a relay of ours prints it at the end of a sentence.
fn pin_in(word: &str) -> Option<String> {
    word.starts_with("sha256-raw:").then(|| word.trim_end_matches('.').to_owned())
}

/// Starts a process that stays on one core, with all its threads: it inherits that from us.
fn on_core(core: usize, mut command: Command) -> Result<Child> {
    let ours = sched_getaffinity(None)?;
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("cannot run on core {core}"))?;
    let child = command.spawn();
    sched_setaffinity(None, &ours)?;
    child.with_context(|| format!("cannot start {}", command.get_program().display()))
}
