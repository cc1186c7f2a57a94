//! `database`: where everything is stored.

use std::path::PathBuf;

use crate::finding::Report;
use crate::key::section;
use crate::types::{Secret, choice};

section! {
    /// Where everything is stored.
    pub struct Database {
        /// Engine: sqlite or postgres.
        pub engine: DatabaseType = "database.type", "sqlite";
    }
    sections {
        /// Read with type sqlite.
        pub sqlite: Sqlite;
        /// Read with type postgres.
        pub postgres: Postgres;
    }
}

choice! {
    /// The engines.
    pub enum DatabaseType {
        /// A file, with the server in this process.
        Sqlite = "sqlite" | "sqlite3",
        /// A PostgreSQL server.
        Postgres = "postgres",
    }
}

section! {
    /// The database in a file.
    pub struct Sqlite {
        /// The database file; made if it is missing. Default: db.sqlite in the data directory.
        pub path: PathBuf = "database.sqlite.path", "db.sqlite";
        /// Whether changes go to a write-ahead log first, which readers do not wait for.
        pub write_ahead_log: bool = "database.sqlite.write_ahead_log", "true";
        /// Pages in the write-ahead log before it is written back; 0 for never.
        pub wal_autocheckpoint: u32 = "database.sqlite.wal_autocheckpoint", "10000";
    }
}

section! {
    /// The database on a PostgreSQL server, given by `url` or by `host` and what follows it.
    pub struct Postgres {
        /// Connection URL, `postgres://user:password@host/database`; instead of host, port, name,
        /// user, pass and ssl.
        pub url: Option<Secret> = "database.postgres.url", "\"\"";
        /// Host of the server, or the directory of its unix socket.
        pub host: Option<String> = "database.postgres.host", "\"\"";
        /// Port of the server.
        pub port: u16 = "database.postgres.port", "5432";
        /// Name of the database.
        pub name: Option<String> = "database.postgres.name", "\"\"";
        /// User to log in as.
        pub user: Option<String> = "database.postgres.user", "\"\"";
        /// Password of the user; better given as `MESHCONTROL_DATABASE_POSTGRES_PASS`.
        pub pass: Option<Secret> = "database.postgres.pass", "\"\"";
        /// TLS to the server: false, true (required), or an sslmode such as verify-full.
        pub ssl: SslMode = "database.postgres.ssl", "false";
        /// Connections open at most.
        pub max_open_conns: u32 = "database.postgres.max_open_conns", "10";
        /// Connections kept open without work at most.
        pub max_idle_conns: u32 = "database.postgres.max_idle_conns", "10";
        /// Seconds after which a connection without work is closed; 0 for never.
        pub conn_max_idle_time_secs: u32 = "database.postgres.conn_max_idle_time_secs", "3600";
    }
}

choice! {
    /// How far TLS to the server is wanted; the words are libpq's sslmode (PostgreSQL 33.19).
    pub enum SslMode {
        /// Never.
        Disable = "disable" | "false" | "no" | "off",
        /// If the server insists.
        Allow = "allow",
        /// If the server can.
        Prefer = "prefer",
        /// Always, with whatever certificate.
        Require = "require" | "true" | "yes" | "on",
        /// Always, with a certificate of a known authority.
        VerifyCa = "verify-ca",
        /// Always, with a certificate of a known authority for this host.
        VerifyFull = "verify-full",
    }
}

impl Database {
    pub(crate) fn check(&self, report: &mut Report) {
        if self.engine == DatabaseType::Postgres {
            self.postgres.check(report);
        }
    }
}

impl Postgres {
    fn check(&self, report: &mut Report) {
        let has_scheme = |url: &Secret| {
            ["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme))
        };
        match (&self.url, &self.host) {
            (None, None) => report.error(
                "database.type",
                "postgres needs database.postgres.url, or database.postgres.host, name and user",
            ),
            (Some(_), Some(_)) => {
                report.error("database.postgres.url", "is set beside host; remove one of them");
            }
            (Some(url), None) if !has_scheme(url) => {
                report.error("database.postgres.url", "must begin with postgres://");
            }
            (Some(_), None) => {}
            (None, Some(_)) => self.check_parts(report),
        }
        if self.max_open_conns == 0 {
            report.error("database.postgres.max_open_conns", "must be 1 or more");
        }
    }

    fn check_parts(&self, report: &mut Report) {
        for (path, part) in
            [("database.postgres.name", &self.name), ("database.postgres.user", &self.user)]
        {
            if part.is_none() {
                report.error(path, "must be set when database.postgres.host is");
            }
        }
    }
}
