//! A database that does not answer for a while.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::database::{Database, psql};

/// A database that is stopped until this is dropped.
#[derive(Debug)]
pub enum Outage {
    /// Another process holds the lock of whoever writes to the file.
    Locked(Child),
    /// All processes of the Postgres are halted, as if the machine were gone: nothing is refused, nothing is answered.
    Halted(Vec<String>),
}

impl Outage {
    /// Stops a database; `file` is where SQLite keeps it.
    pub(crate) fn begin(database: &Database, file: &Path) -> Result<Self> {
        match database {
            Database::Sqlite => {
                let mut holder = Command::new("sqlite3")
                    .arg("-bail")
                    .arg(file)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .context("sqlite3 is not installed: apt-get install sqlite3")?;
                lock(&mut holder)?;
                Ok(Self::Locked(holder))
            }
            Database::Postgres { server, .. } => {
                let directory = psql(server, "SHOW data_directory")?;
                let path = PathBuf::from(directory.trim()).join("postmaster.pid");
                let text = fs::read_to_string(&path).with_context(|| {
                    format!(
                        "{}: the Postgres of these tests is not on this machine, or not ours",
                        path.display()
                    )
                })?;
                let postmaster = text.lines().next().context("an empty postmaster.pid")?.trim();
                let children =
                    fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"))?;
                // The one that makes processes first, so that no more come.
                let pids = [postmaster].into_iter().chain(children.split_whitespace());
                let halted = Self::Halted(pids.map(str::to_owned).collect());
                halted.signal("STOP")?;
                Ok(halted)
            }
        }
    }

    fn signal(&self, name: &str) -> Result<()> {
        let Self::Halted(pids) = self else { return Ok(()) };
        for pid in pids {
            let status = Command::new("kill").args([&format!("-{name}"), pid]).status()?;
            // A process of a session that has just ended may be gone.
            let is_gone = || !Path::new("/proc").join(pid).exists();
            ensure!(status.success() || is_gone(), "Postgres cannot be sent {name}");
        }
        Ok(())
    }
}

/// Has a shell of SQLite take the lock, and waits until it says that it has it.
fn lock(holder: &mut Child) -> Result<()> {
    let stdin = holder.stdin.as_mut().context("invariant: stdin is piped")?;
    writeln!(stdin, ".timeout 5000\nBEGIN IMMEDIATE;\nSELECT 'locked';")?;
    let stdout = holder.stdout.take().context("invariant: stdout is piped")?;
    let mut told = String::new();
    BufReader::new(stdout).read_line(&mut told)?;
    ensure!(told.trim() == "locked", "sqlite3 did not get the lock: {told:?}");
    Ok(())
}

/// Kills a process of Postgres that serves a database, whereupon it ends all others, reads its log again and starts
/// anew.
pub(crate) fn crash(database: &Database) -> Result<()> {
    let Database::Postgres { server, name } = database else {
        bail!("SQLite lives in the server: kill that");
    };
    let served = format!("SELECT pid FROM pg_stat_activity WHERE datname = '{name}' LIMIT 1");
    let pid = psql(server, &served)?;
    let status = Command::new("kill").args(["-KILL", pid.trim()]).status()?;
    ensure!(status.success(), "no process of Postgres can be killed");
    Ok(())
}

impl Drop for Outage {
    fn drop(&mut self) {
        let ended = match self {
            Self::Locked(holder) => {
                holder.kill().and_then(|()| holder.wait()).map(drop).map_err(Into::into)
            }
            Self::Halted(_) => self.signal("CONT"),
        };
        if let Err(error) = ended {
            eprintln!("the database is still stopped: {error:#}");
        }
    }
}
