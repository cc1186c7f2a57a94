//! A database per scenario.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::environment;

/// Where a server stores everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The file in its data directory, which it makes without any configuration.
    Sqlite,
    /// A fresh database on the Postgres that the environment names.
    Postgres,
}

/// A fresh database, dropped with this value.
#[derive(Debug)]
pub(crate) enum Database {
    /// The server makes it.
    Sqlite,
    /// Made by us.
    Postgres {
        /// The URL of the Postgres, without a database of ours.
        server: String,
        /// The database's name.
        name: String,
    },
}

impl Database {
    /// Makes a database whose name holds `label`, which must be unique on this machine.
    pub(crate) fn create(engine: Engine, label: &str) -> Result<Self> {
        match engine {
            Engine::Sqlite => Ok(Self::Sqlite),
            Engine::Postgres => {
                let server = environment::required(environment::POSTGRES_URL)?;
                let name = format!("scenario_{label}");
                psql(&server, &format!("CREATE DATABASE {name}"))?;
                Ok(Self::Postgres { server, name })
            }
        }
    }

    /// The configuration that makes a server use it.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Sqlite => Vec::new(),
            Self::Postgres { server, name } => vec![
                ("MESHCONTROL_DATABASE_TYPE", "postgres".to_owned()),
                ("MESHCONTROL_DATABASE_POSTGRES_URL", with_database(server, name)),
            ],
        }
    }

    /// Its URL, or the path of the file in a server's data directory.
    pub(crate) fn location(&self, data: &Path) -> String {
        match self {
            Self::Sqlite => data.join("db.sqlite").display().to_string(),
            Self::Postgres { server, name } => with_database(server, name),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Self::Postgres { server, name } = self
            && let Err(error) = psql(server, &format!("DROP DATABASE {name} WITH (FORCE)"))
        {
            eprintln!("{error:#}");
        }
    }
}

/// The URL of another database on the same server: `postgres://role@host/other?parameters`.
fn with_database(server: &str, name: &str) -> String {
    let (address, parameters) = server.split_once('?').unwrap_or((server, ""));
    let (scheme, rest) = address.split_once("://").unwrap_or(("postgres", address));
    let host = rest.split('/').next().unwrap_or(rest);
    let separator = if parameters.is_empty() { "" } else { "?" };
    format!("{scheme}://{host}/{name}{separator}{parameters}")
}

/// Runs a statement and returns what it says, without headings.
pub(crate) fn psql(server: &str, statement: &str) -> Result<String> {
    let output = Command::new("psql")
        .args([server, "--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
        .args(["--command", statement])
        .output()
        .context("psql is not installed: apt-get install postgresql-client")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{statement}: {}", told.trim());
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests;
