//! Which database to open.

use std::fmt;
use std::path::PathBuf;

/// Which database to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Options {
    /// A file of our own. It is made if it is not there.
    Sqlite {
        /// The file. Folders above it that are missing are made, for us alone to enter.
        path: PathBuf,
        /// Whether commits go to a log beside the file first, which is much faster.
        write_ahead_log: bool,
        /// After how many pages of log the file is brought up to date; 0: only when it is closed.
        wal_autocheckpoint: u32,
    },
    /// A Postgres server.
    Postgres(PostgresOptions),
}

/// Where a Postgres server is and who we are to it.
#[derive(Clone, PartialEq, Eq)]
pub enum PostgresOptions {
    /// `postgres://user:password@host:port/name?sslmode=...`, as libpq reads it.
    Url(String),
    /// The same in parts, named as headscale's configuration names them. An empty part is libpq's default.
    Parts {
        /// Host name, address, or the folder of a unix socket.
        host: String,
        /// Its port; 5432 if absent.
        port: Option<u16>,
        /// Name of the database.
        name: String,
        /// Our user.
        user: String,
        /// Our password.
        password: String,
        /// `true` (TLS if the server has it), `false`, or one of libpq's modes: `disable`, `allow`, `prefer`,
        /// `require`, `verify-ca`, `verify-full`.
        ssl: String,
    },
}

impl fmt::Debug for PostgresOptions {
    /// Leaves out the password, and the whole URL, which may hold one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(_) => f.write_str("Url(redacted)"),
            Self::Parts { host, port, name, user, password: _, ssl } => f
                .debug_struct("Parts")
                .field("host", host)
                .field("port", port)
                .field("name", name)
                .field("user", user)
                .field("ssl", ssl)
                .finish_non_exhaustive(),
        }
    }
}
