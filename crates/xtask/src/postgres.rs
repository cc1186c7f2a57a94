//! A private Postgres for tests and benches: made in a scratch directory, gone when dropped.

use std::env;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::command::{ending_with_us, find, output};

/// The environment variable under which tests and benches find Postgres, as a URL.
///
/// The role in it may create databases: every test makes its own.
pub(crate) const URL_VARIABLE: &str = "MESHCONTROL_TEST_POSTGRES_URL";

/// How long a fresh server may take until it answers.
const START_MAX: Duration = Duration::from_secs(30);

/// How many connections it allows: tests run side by side, each with a pool of its own.
const CONNECTIONS_MAX: u32 = 400;

/// Whether what was committed survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// No flush to disk: the data is scratch, and tests are faster.
    Scratch,
    /// As in production, so that a bench measures what an operator gets.
    Full,
}

/// A Postgres to test against.
#[derive(Debug)]
pub(crate) enum Postgres {
    /// One that runs already, named by [`URL_VARIABLE`].
    Given(String),
    /// One of our own.
    Private(Cluster),
}

/// A running server and the directory it lives in; dropping it stops the one and removes the other.
#[derive(Debug)]
pub(crate) struct Cluster {
    url: String,
    server: Child,
    programs: Programs,
    directory: TempDir,
}

/// Where the programs of Postgres are, and as whom they run.
#[derive(Debug)]
struct Programs {
    directory: PathBuf,
    /// Set when we are root: Postgres refuses to run as root.
    account: Option<Account>,
}

/// A user and group of the machine, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Account {
    user: u32,
    group: u32,
}

impl Postgres {
    /// Takes the Postgres that the environment names, or else starts a private one.
    ///
    /// # Errors
    /// When none is installed, with the command that installs it, or when it does not start.
    pub(crate) fn provide(durability: Durability) -> Result<Self> {
        match env::var_os(URL_VARIABLE) {
            Some(url) => {
                let url = url.into_string().ok().context("a URL is UTF-8")?;
                println!("Postgres: {URL_VARIABLE} is set, using that");
                Ok(Self::Given(url))
            }
            None => Ok(Self::Private(Cluster::start(Programs::find()?, durability)?)),
        }
    }

    /// What it calls itself, as far as we can tell without connecting.
    ///
    /// # Errors
    /// When the server's program does not run.
    pub(crate) fn version(&self) -> Result<String> {
        match self {
            Self::Given(_) => Ok("Postgres as given".to_owned()),
            Self::Private(Cluster { programs, directory, .. }) => {
                output(programs.command("postgres", directory.path()).arg("--version"))
            }
        }
    }

    /// Makes an empty database of its own name and returns its URL.
    ///
    /// # Errors
    /// When `psql` is missing, or the role may not create databases.
    pub(crate) fn fresh_database(&self) -> Result<String> {
        static MADE: AtomicUsize = AtomicUsize::new(1);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("bench_{}_{number}", std::process::id());
        let psql = match self {
            Self::Given(_) => PathBuf::from("psql"),
            Self::Private(cluster) => cluster.programs.directory.join("psql"),
        };
        let statement = format!("CREATE DATABASE {name}");
        output(Command::new(psql).args(["--quiet", "--command", &statement, self.url()]))?;
        let (server, _) = self.url().rsplit_once('/').context("a URL of a database has a path")?;
        Ok(format!("{server}/{name}"))
    }

    /// The URL to connect with.
    pub(crate) fn url(&self) -> &str {
        match self {
            Self::Given(url) => url,
            Self::Private(cluster) => &cluster.url,
        }
    }
}

impl Cluster {
    fn start(programs: Programs, durability: Durability) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("meshcontrol-postgres-").tempdir()?;
        if let Some(Account { user, group }) = programs.account {
            chown(directory.path(), Some(user), Some(group))?;
        }
        let data = directory.path().join("data");
        output(
            programs
                .command("initdb", directory.path())
                .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"])
                .args(["--no-sync", "--pgdata"])
                .arg(&data),
        )?;
        let port = free_port()?;
        let server = programs.serve(directory.path(), &data, port, durability)?;
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        println!("Postgres: {} at {url}", programs.directory.display());
        let mut cluster = Self { url, server, programs, directory };
        cluster.wait_until_ready(port)?;
        Ok(cluster)
    }

    fn wait_until_ready(&mut self, port: u16) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        loop {
            let mut probe = self.programs.command("pg_isready", self.directory.path());
            if output(probe.args(["--quiet", "--host=127.0.0.1", &format!("--port={port}")]))
                .is_ok()
            {
                return Ok(());
            }
            if self.server.try_wait()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                bail!("Postgres did not start:\n{log}");
            }
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let stopped = output(
            self.programs
                .command("pg_ctl", self.directory.path())
                .args(["stop", "--mode=immediate", "--pgdata"])
                .arg(self.directory.path().join("data")),
        );
        if let Err(error) = stopped {
            eprintln!("cannot stop Postgres cleanly: {error:#}");
            let _ = self.server.kill();
        }
        let _ = self.server.wait();
    }
}

impl Programs {
    /// Looks in `PATH`, then where Debian keeps each version; the newest wins.
    fn find() -> Result<Self> {
        let Some(directory) = on_path().or_else(in_debian) else {
            bail!(
                "Postgres is not installed: `apt-get install postgresql` (or your system's package) \
                 provides initdb and postgres; or name a running one in {URL_VARIABLE}"
            );
        };
        Ok(Self { directory, account: account_for_root()? })
    }

    fn command(&self, program: &str, home: &Path) -> Command {
        self.as_account(Command::new(self.directory.join(program)), home)
    }

    fn server(&self, home: &Path) -> Command {
        let mut words = ending_with_us("INT");
        words.push(self.directory.join("postgres").display().to_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        self.as_account(command, home)
    }

    fn as_account(&self, mut command: Command, home: &Path) -> Command {
        command.current_dir(home);
        if let Some(Account { user, group }) = self.account {
            command.uid(user).gid(group);
        }
        command
    }

    fn serve(&self, home: &Path, data: &Path, port: u16, durability: Durability) -> Result<Child> {
        let log = File::create(home.join("log"))?;
        let mut command = self.server(home);
        command.arg("-D").arg(data).arg("-k").arg(home);
        command.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
        command.args(["-c", &format!("max_connections={CONNECTIONS_MAX}")]);
        if durability == Durability::Scratch {
            command.args(["-c", "fsync=off", "-c", "full_page_writes=off"]);
        }
        command.stdout(log.try_clone()?).stderr(log).spawn().context("cannot start postgres")
    }
}

fn on_path() -> Option<PathBuf> {
    let initdb = fs::canonicalize(find("initdb")?).ok()?;
    initdb.parent().map(Path::to_path_buf)
}

fn in_debian() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok);
    let newest = versions.max_by_key(|entry| entry.file_name().to_str()?.parse::<u32>().ok())?;
    Some(newest.path().join("bin")).filter(|bin| bin.join("initdb").is_file())
}

/// The account to run as when we are root: `postgres`, which the package makes, or else `nobody`.
fn account_for_root() -> Result<Option<Account>> {
    if fs::metadata("/proc/self").map_or(1, |own| own.uid()) != 0 {
        return Ok(None);
    }
    let accounts = fs::read_to_string("/etc/passwd")?;
    let account = find_account(&accounts, "postgres").or_else(|| find_account(&accounts, "nobody"));
    account
        .map(Some)
        .context("running as root, and neither `postgres` nor `nobody` exists to run Postgres as")
}

/// Finds `name` in the text of `/etc/passwd`.
fn find_account(accounts: &str, name: &str) -> Option<Account> {
    let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut numbers = line.split(':').skip(2);
    Some(Account { user: numbers.next()?.parse().ok()?, group: numbers.next()?.parse().ok()? })
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests;
