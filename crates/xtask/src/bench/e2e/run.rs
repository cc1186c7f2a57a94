//! One run: a server, a tailnet in it, the harness, and stock clients where the workload has them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::adapter::Side;
use super::outcome::Reported;
use super::real::Clients;
use super::server::Server;
use super::tailnet::{Node, Tailnet};
use super::workload::Session;
use crate::command::{cargo, execute, target_dir};
use crate::go::Go;
use crate::phases::Phases;
use crate::postgres::Postgres;

/// What the harness may take beyond the limits of its phases, of which each has two: until all is right, until quiet.
const SPARE: Duration = Duration::from_mins(1);

/// The programs of a run.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) server: PathBuf,
    pub(crate) harness: PathBuf,
    pub(crate) benchgen: PathBuf,
    /// The driver of stock clients, if any workload has some.
    tsnet: Option<PathBuf>,
}

/// What is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) programs: &'a Programs,
    pub(crate) session: &'a Session,
    pub(crate) tailnet: &'a Tailnet,
}

impl Programs {
    /// Builds the server, the harness and `benchgen` with optimisation, and the driver of stock clients if one is wanted.
    ///
    /// # Errors
    /// One of them does not build, or Go is missing.
    pub(crate) fn build(with_stock: bool, phases: &mut Phases) -> Result<Self> {
        phases.run("build server and harness with optimisation", || {
            let packages = "--package meshcontrol --package mesh-harness --package mesh-testkit";
            let targets = "--bins --example benchgen";
            execute(&mut cargo(&format!("build --release --locked {packages} {targets}")))
        })?;
        let target = target_dir()?;
        let tsnet = if with_stock {
            let driver = target.join("drivers/tsnet");
            let go = Go::find()?;
            phases.run("build the tsnet driver", || go.build("integration/tsnet", &driver))?;
            Some(driver)
        } else {
            None
        };
        let release = target.join("release");
        Ok(Self {
            server: release.join("meshcontrol"),
            harness: release.join("meshharness"),
            benchgen: release.join("examples/benchgen"),
            tsnet,
        })
    }
}

impl Run<'_> {
    /// Runs everything once against a server.
    ///
    /// # Errors
    /// The server does not start, or refuses what it is given before the load. What it does under load is a result.
    pub(crate) fn against(
        &self,
        side: &Side,
        postgres: Option<&Postgres>,
        limit: Duration,
    ) -> Result<Reported> {
        let mut server = Server::start(side, postgres)?;
        let version = server.version()?;
        let nodes = self.tailnet.put_into(&mut server)?;
        let (fake, stock) = nodes.split_at(nodes.len() - self.session.stock);
        let mut clients = match &self.programs.tsnet {
            Some(driver) if !stock.is_empty() => {
                let named = stock.iter().map(|(key, node)| (&**key, &*node.hostname));
                Some(Clients::start(driver, &server, named)?)
            }
            Some(_) | None => None,
        };
        let said = self.harness(&server, fake, limit)?;
        let stock = clients.as_mut().map(|clients| clients.judge(self.tailnet));
        Ok(Reported::new(version, said, stock))
    }

    /// Lets the harness play the fake nodes, and returns what it said as JSON; nothing if it had to be killed.
    fn harness(&self, server: &Server, fake: &[(String, Node)], limit: Duration) -> Result<String> {
        let directory = server.directory();
        let keys = directory.join("keys");
        let line = |(key, node): &(String, Node)| format!("{key} {}\n", node.hostname);
        fs::write(&keys, fake.iter().map(line).collect::<Vec<_>>().concat())?;
        let answer = directory.join("answer.json");
        let mut command = Command::new(&self.programs.harness);
        command.args(["--url", &server.url(), "--json", "--ignore-others"]);
        command.arg("--keys").arg(&keys);
        command.args(["--nodes", &self.session.together().to_string()]);
        if !self.tailnet.is_open() {
            command.arg("--expect").arg(self.tailnet.file("expected"));
        }
        command.arg("--server-pid").arg(server.pid_file());
        command.args(["--limit", &limit.as_secs().to_string()]);
        command.args(["--quiet-limit", &limit.as_secs().to_string()]);
        if self.session.phases.contains(&"restart-server") {
            command.args(["--restart-cmd", &server.restart_command()]);
        }
        if self.session.phases.contains(&"policy-edit") {
            let edited = server.policy_command(&self.tailnet.file("edited.hujson"));
            command.args(["--policy-cmd", &edited]);
            command.arg("--policy-expect").arg(self.tailnet.file("edited-expected"));
        }
        command.args(&self.session.phases);
        let phases = u32::try_from(self.session.phases.len())?;
        run_within(&mut command, &answer, 2 * limit * phases + SPARE)?;
        Ok(fs::read_to_string(&answer)?)
    }
}

/// Runs a command with its output in a file, and kills it after a while. How it ends is of no matter.
fn run_within(command: &mut Command, answer: &Path, most: Duration) -> Result<()> {
    let mut child = command.stdout(File::create(answer)?).spawn()?;
    let deadline = Instant::now() + most;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            break;
        }
        sleep(Duration::from_millis(20));
    }
    Ok(())
}
