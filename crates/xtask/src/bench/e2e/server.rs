//! A control server under test: in a directory of its own, started again when it ends, gone when dropped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use super::adapter::{Side, Words};
use crate::command::{ending_with_us, output};
use crate::postgres::Postgres;

/// How long a fresh server may take until it answers.
const START_MAX: Duration = Duration::from_secs(30);

/// How long a server may take to end when it is asked to, before it is killed.
const STOP_MAX: Duration = Duration::from_secs(20);

/// How often it is looked whether the server still runs.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Where servers listen: below what Linux and others dial from.
const PORTS: Range<u16> = 20_000..30_000;

/// How often a server may end by itself before it is given up.
const STARTS_MAX: usize = 5;

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    side: Side,
    words: Words,
    supervisor: Supervisor,
    /// Their numbers, counted from 1 in the order of making.
    users: BTreeMap<String, usize>,
    directory: TempDir,
}

/// Whom a preauth key makes nodes of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// By name.
    User(String),
    /// Separated by commas, `tag:` included.
    Tags(String),
}

impl Server {
    /// Starts a server in an empty directory, on an empty database, and waits until it answers.
    ///
    /// # Errors
    /// It does not start; the end of its log is part of the message.
    pub(crate) fn start(side: &Side, postgres: Option<&Postgres>) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("meshcontrol-bench-").tempdir()?;
        let path = directory.path();
        let mut words = Words::default()
            .with("binary", side.binary.display().to_string())
            .with("dir", path.display().to_string());
        for port in ["port1", "port2", "port3", "port4"] {
            words = words.with(port, listen_port()?.to_string());
        }
        if let Some(postgres) = postgres.filter(|_| side.wants_postgres()) {
            words = words.with("postgres", postgres.fresh_database()?);
        }
        for (name, text) in &side.adapter.files {
            fs::write(path.join(name), words.fill(text)).with_context(|| name.clone())?;
        }
        let serve = format!("{} {}", ending_with_us("TERM").join(" "), side.adapter.serve);
        let supervisor = Supervisor::start(words.command(&serve, path)?, path);
        let server =
            Self { side: side.clone(), words, supervisor, users: BTreeMap::new(), directory };
        server.wait_until_healthy()?;
        Ok(server)
    }

    /// Where clients dial.
    pub(crate) fn url(&self) -> String {
        self.words.fill("http://127.0.0.1:{port1}")
    }

    /// A directory for whatever belongs to the run; gone with the server.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The file that holds the number of its process, whichever is the current one.
    pub(crate) fn pid_file(&self) -> PathBuf {
        self.directory.path().join("pid")
    }

    /// A command line for a shell that ends the server and returns when it has been started again.
    pub(crate) fn restart_command(&self) -> String {
        let pid = format!("cat {}", self.pid_file().display());
        format!(
            r#"old=$({pid}); kill -TERM $old; while [ "$({pid})" = $old ]; do sleep 0.01; done"#
        )
    }

    /// A command line for a shell that puts the policy in `file` into force.
    pub(crate) fn policy_command(&self, file: &Path) -> String {
        self.words.with("file", file.display().to_string()).fill(&self.side.adapter.policy)
    }

    /// Makes a user.
    ///
    /// # Errors
    /// The server refuses.
    pub(crate) fn create_user(&mut self, name: &str, email: &str) -> Result<()> {
        let words = self.words.with("name", name).with("email", email);
        output(&mut words.command(&self.side.adapter.user, self.directory())?)?;
        self.users.insert(name.to_owned(), self.users.len() + 1);
        Ok(())
    }

    /// Puts a policy into force.
    ///
    /// # Errors
    /// The server refuses.
    pub(crate) fn set_policy(&self, file: &Path) -> Result<()> {
        let words = self.words.with("file", file.display().to_string());
        output(&mut words.command(&self.side.adapter.policy, self.directory())?)?;
        Ok(())
    }

    /// Makes a preauth key for one node or for many, and returns it.
    ///
    /// # Errors
    /// The server refuses, or prints nothing.
    pub(crate) fn mint(&self, owner: &Owner, is_for_many: bool) -> Result<String> {
        let adapter = &self.side.adapter;
        let owner = match owner {
            Owner::User(name) => {
                let id = self.users.get(name).with_context(|| format!("no user {name}"))?;
                let words = self.words.with("name", name).with("id", id.to_string());
                words.fill(&adapter.owner_user)
            }
            Owner::Tags(tags) => self.words.with("tags", tags).fill(&adapter.owner_tags),
        };
        let reuse = if is_for_many { &adapter.reuse } else { "" };
        let words = self.words.with("owner", owner).with("reuse", reuse);
        let printed = output(&mut words.command(&adapter.key, self.directory())?)?;
        let key = printed.split_whitespace().last().context("no key was printed")?;
        Ok(key.to_owned())
    }

    /// What the server calls itself: the first line of what it prints.
    ///
    /// # Errors
    /// It cannot be run.
    pub(crate) fn version(&self) -> Result<String> {
        let printed =
            output(&mut self.words.command(&self.side.adapter.version, self.directory())?)?;
        Ok(printed.lines().next().unwrap_or_default().to_owned())
    }

    /// The end of what the server logged.
    pub(crate) fn log(&self) -> String {
        self.supervisor.log()
    }

    fn wait_until_healthy(&self) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        loop {
            let mut probe =
                self.words.command(&self.side.adapter.healthy, self.directory.path())?;
            match output(&mut probe) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    bail!("{} did not start: {error:#}\n{}", self.side.name, self.log())
                }
                Err(_) => sleep(Duration::from_millis(50)),
            }
        }
    }
}

/// A port that was free a moment ago and that no system dials from: while a server is down, thousands of clients that try
/// again would otherwise take it for themselves now and then.
pub(crate) fn listen_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % u32::from(PORTS.end - PORTS.start))?;
    let count = PORTS.end - PORTS.start;
    for _ in 0..count {
        let port = PORTS.start + (first + NEXT.fetch_add(1, Ordering::Relaxed) % count) % count;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of {PORTS:?} is free")
}

/// A thread that keeps a process running. Dropping it ends the process.
#[derive(Debug)]
struct Supervisor {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    log: PathBuf,
}

impl Supervisor {
    fn start(command: Command, directory: &Path) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let log = directory.join("log");
        let (thread_over, thread_log) = (is_over.clone(), log.clone());
        let pid_file = directory.join("pid");
        let thread = thread::spawn(move || {
            if let Err(error) = keep_running(command, &thread_log, &pid_file, &thread_over) {
                eprintln!("the server under test: {error:#}");
            }
        });
        Self { is_over, thread: Some(thread), log }
    }

    fn log(&self) -> String {
        const LOG_BYTES_MAX: usize = 4000;
        let log = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_BYTES_MAX)..]).into_owned()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Starts the process, and starts it again whenever it ends, until it `is_over`.
fn keep_running(
    mut command: Command,
    log: &Path,
    pid_file: &Path,
    is_over: &AtomicBool,
) -> Result<()> {
    for _ in 0..STARTS_MAX {
        let log = File::options().create(true).append(true).open(log)?;
        let mut child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        let written = pid_file.with_extension("new");
        fs::write(&written, child.id().to_string())?;
        fs::rename(&written, pid_file)?;
        while child.try_wait()?.is_none() {
            if is_over.load(Ordering::Relaxed) {
                return stop(&mut child);
            }
            sleep(LOOK_EVERY);
        }
        if is_over.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
    bail!("it ended {STARTS_MAX} times")
}

/// Asks a process to end, and kills it if it does not.
fn stop(child: &mut Child) -> Result<()> {
    output(Command::new("kill").arg("-TERM").arg(child.id().to_string()))?;
    let deadline = Instant::now() + STOP_MAX;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            break;
        }
        sleep(LOOK_EVERY);
    }
    Ok(())
}
