//! Why a database does not open. The texts are for the operator: each says what to do.

use std::io;
use std::path::PathBuf;

use sqlx::migrate::MigrateError;
use thiserror::Error;

use crate::engine::{Engine, Target};
use crate::migrations;

/// Why a database does not open.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The URL or a part of it makes no sense.
    #[error(
        "the Postgres settings make no sense: a URL reads \
         postgres://user:password@host:port/name?sslmode=require"
    )]
    Options {
        /// What is wrong.
        source: sqlx::Error,
    },
    /// The file or its folder cannot be made, or not be read and written.
    #[error(
        "cannot open the database file {}: the user that runs meshcontrol must own it and its folder",
        path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is not an SQLite database: choose another path", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// Another program writes to the file.
    #[error("{} is locked: stop the other program that uses it", path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// Nobody answers.
    #[error("cannot reach Postgres at {host}:{port}: check that it runs, and its host and port")]
    Unreachable {
        /// Host, or folder of a unix socket.
        host: String,
        /// Port.
        port: u16,
        /// What the system says.
        source: sqlx::Error,
    },
    /// No TLS, or no trust.
    #[error(
        "Postgres does not offer TLS as asked: `ssl: false` does without it, \
         `sslrootcert` in the URL names the certificate to trust"
    )]
    Tls {
        /// What is wrong.
        source: sqlx::Error,
    },
    /// Wrong password, no such user, or none that may come from here.
    #[error("Postgres does not let the user {user} in: check user and password, and pg_hba.conf")]
    Login {
        /// The user.
        user: String,
        /// What the server says.
        source: sqlx::Error,
    },
    /// The server has no database of this name.
    #[error("Postgres has no database {database}: CREATE DATABASE {database} OWNER {user};")]
    NoDatabase {
        /// Its name.
        database: String,
        /// Our user.
        user: String,
    },
    /// The user may not make tables.
    #[error(
        "the user {user} may not make tables in the database {database}: \
         ALTER DATABASE {database} OWNER TO {user};"
    )]
    Denied {
        /// Its name.
        database: String,
        /// Our user.
        user: String,
    },
    /// There are tables of our names that we did not make.
    #[error("the database holds tables of another program: give meshcontrol one of its own")]
    Foreign,
    /// The database has been through a step that this program does not know.
    #[error(
        "the database was written by a newer meshcontrol (schema {found}, this one knows {known}): \
         run that version, or restore the backup from before the upgrade"
    )]
    Newer {
        /// Its newest step.
        found: i64,
        /// Our newest step.
        known: i64,
    },
    /// The database has been through another step of this name.
    #[error(
        "the database was written by another build of meshcontrol (schema {version} differs): \
         run that build, or restore a backup"
    )]
    Different {
        /// The step.
        version: i64,
    },
    /// Anything else.
    #[error("the database does not open")]
    Failed(#[source] sqlx::Error),
}

impl OpenError {
    /// Says why the schema could not be brought up to date.
    pub(crate) fn from_migrate<E: Engine>(error: MigrateError, target: &Target<E>) -> Self {
        let known = migrations::newest(E::STEPS);
        if let MigrateError::VersionMissing(found) = error
            && found > known
        {
            return Self::Newer { found, known };
        }
        if let MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) =
            error
        {
            return Self::Different { version };
        }
        if let MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) = error {
            return E::explain(error, target);
        }
        Self::Failed(sqlx::Error::Migrate(Box::new(error)))
    }
}
