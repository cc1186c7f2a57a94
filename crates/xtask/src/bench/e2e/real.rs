//! Stock Tailscale clients beside the fake nodes: the tsnet driver of `integration/`, one process per client.
//!
//! `integration/README.md` tells the line protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::server::Server;
use super::tailnet::Tailnet;

/// How long clients may take until they see whom they should.
const SEEN_MAX: Duration = Duration::from_mins(1);

/// Stock clients that have logged in.
#[derive(Debug)]
pub(crate) struct Clients(Vec<Client>);

/// One client. Dropping it kills its process.
#[derive(Debug)]
struct Client {
    hostname: String,
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Clients {
    /// Starts a client for each preauth key and hostname, and logs it in.
    ///
    /// # Errors
    /// A driver does not start, or refuses the login.
    pub(crate) fn start<'a>(
        driver: &Path,
        server: &Server,
        nodes: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self> {
        let start = |(key, hostname)| Client::start(driver, server, key, hostname);
        Ok(Self(nodes.into_iter().map(start).collect::<Result<_>>()?))
    }

    /// Waits until each of them sees exactly whom it should.
    ///
    /// # Errors
    /// One of them does not; the message says how far it is off.
    pub(crate) fn judge(&mut self, tailnet: &Tailnet) -> Result<()> {
        let expected = fs::read_to_string(tailnet.file("expected"))?;
        let mut sets: BTreeMap<&str, BTreeSet<&str>> = expected
            .lines()
            .map(|line| line.split_once(' ').unwrap_or((line, "")))
            .map(|(hostname, peers)| (hostname, peers.split_whitespace().collect()))
            .collect();
        let deadline = Instant::now() + SEEN_MAX;
        for client in &mut self.0 {
            let expected = sets.remove(&*client.hostname).context("a client that is no node")?;
            loop {
                let seen = client.peers()?;
                let missing = expected.iter().filter(|peer| !seen.contains(**peer)).count();
                let wrong = seen.iter().filter(|peer| !expected.contains(&***peer)).count();
                if missing + wrong == 0 {
                    break;
                }
                if Instant::now() > deadline {
                    bail!("{}: {wrong} wrong, {missing} missing peers", client.hostname);
                }
                sleep(Duration::from_millis(200));
            }
        }
        Ok(())
    }
}

impl Client {
    fn start(driver: &Path, server: &Server, key: &str, hostname: &str) -> Result<Self> {
        let directory = server.directory().join(hostname);
        fs::create_dir(&directory)?;
        let mut process = Command::new(driver)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(directory.join("log"))?)
            .spawn()
            .with_context(|| driver.display().to_string())?;
        let stdin = process.stdin.take().context("invariant: it is piped")?;
        let stdout = BufReader::new(process.stdout.take().context("invariant: it is piped")?);
        let mut client = Self { hostname: hostname.to_owned(), process, stdin, stdout };
        client.call(
            "up",
            &json!({
                "control_url": server.url(), "dir": directory, "auth_key": key, "hostname": hostname,
            }),
        )?;
        Ok(client)
    }

    /// The first labels of its peers' names.
    fn peers(&mut self) -> Result<BTreeSet<String>> {
        let status = self.call("status", &json!({}))?;
        let peers = status["peers"].as_array().context("a status without peers")?;
        let label = |peer: &Value| Some(peer["name"].as_str()?.split('.').next()?.to_owned());
        Ok(peers.iter().filter_map(label).collect())
    }

    fn call(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let request = json!({"id": 1, "cmd": command, "args": arguments});
        self.stdin.write_all(format!("{request}\n").as_bytes())?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let mut reply: Value = serde_json::from_str(&line)
            .with_context(|| format!("{}: the driver ended", self.hostname))?;
        if reply["ok"] != true {
            bail!("{}: {command}: {}", self.hostname, reply["error"]);
        }
        Ok(reply["result"].take())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
