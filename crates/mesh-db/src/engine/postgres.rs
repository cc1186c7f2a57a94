//! Postgres.

use std::str::FromStr as _;

use sqlx::error::DatabaseError;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgSslMode, Postgres};
use sqlx::{Arguments as _, ConnectOptions as _};

use super::{Engine, same_for_both};
use crate::migrations::{self, Steps};
use crate::open::OpenError;
use crate::options::PostgresOptions;
use crate::record::{Row, Value};

/// How we are called in the server's list of connections.
const APPLICATION_NAME: &str = "meshcontrol";

/// How a URL may start.
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// Error codes. Source: the PostgreSQL manual, appendix A.
mod code {
    pub(super) const DATA_EXCEPTION_CLASS: &str = "22";
    pub(super) const INTEGRITY_CLASS: &str = "23";
    pub(super) const AUTHORIZATION_CLASS: &str = "28";
    pub(super) const UNKNOWN_DATABASE: &str = "3D000";
    pub(super) const INSUFFICIENT_PRIVILEGE: &str = "42501";
    pub(super) const DISK_FULL: &str = "53100";
    pub(super) const DUPLICATE_TABLE: &str = "42P07";
}

/// How to reach the server.
pub(crate) fn target(options: &PostgresOptions) -> Result<PgConnectOptions, OpenError> {
    let target = match options {
        PostgresOptions::Url(url) => parse_url(url)?,
        PostgresOptions::Parts { host, port, name, user, password, ssl } => {
            let mut target = PgConnectOptions::new().ssl_mode(ssl_mode(ssl)?);
            if !host.is_empty() {
                target = target.host(host);
            }
            if let Some(port) = port {
                target = target.port(*port);
            }
            if !name.is_empty() {
                target = target.database(name);
            }
            if !user.is_empty() {
                target = target.username(user);
            }
            if !password.is_empty() {
                target = target.password(password);
            }
            target
        }
    };
    Ok(target.application_name(APPLICATION_NAME).disable_statement_logging())
}

fn parse_url(url: &str) -> Result<PgConnectOptions, OpenError> {
    if !SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
        let source = sqlx::Error::Configuration("no postgres:// in front".into());
        return Err(OpenError::Options { source });
    }
    PgConnectOptions::from_str(url).map_err(|source| OpenError::Options { source })
}

/// headscale's setting is a flag or a mode of libpq; its `true` means what libpq does by itself.
fn ssl_mode(text: &str) -> Result<PgSslMode, OpenError> {
    match text {
        "" | "false" => Ok(PgSslMode::Disable),
        "true" => Ok(PgSslMode::Prefer),
        mode => mode.parse().map_err(|source| OpenError::Options { source }),
    }
}

impl Engine for Postgres {
    const STEPS: Steps = migrations::POSTGRES;
    /// A connection that was lost frees its locks soon; what was committed survives a power cut, also where
    /// the server's default is otherwise.
    const GREETING: Option<&'static str> = Some(
        "SET statement_timeout = '60s';
         SET idle_in_transaction_session_timeout = '10s';
         SELECT set_config('synchronous_commit', 'on', false)
         WHERE current_setting('synchronous_commit') = 'off'",
    );
    const BEGIN_WRITE: &'static str = "BEGIN";
    const BEGIN_READ: &'static str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

    same_for_both!();

    fn rows_at_once(rows: usize) -> usize {
        rows
    }

    /// `SELECT * FROM UNNEST($1::bigint[], $2::text[])`: one statement for any number of rows.
    fn relation(rows: Vec<Row>) -> Result<(String, PgArguments), sqlx::Error> {
        let mut arguments = PgArguments::default();
        let mut parameters = Vec::new();
        for column in columns(rows) {
            let type_name = match &column {
                Column::Int(_) => "bigint",
                Column::Text(_) => "text",
                Column::Flag(_) => "boolean",
            };
            parameters.push(format!("${}::{type_name}[]", parameters.len() + 1));
            match column {
                Column::Int(values) => arguments.add(values),
                Column::Text(values) => arguments.add(values),
                Column::Flag(values) => arguments.add(values),
            }
            .map_err(sqlx::Error::Encode)?;
        }
        Ok((format!("SELECT * FROM UNNEST({})", parameters.join(", ")), arguments))
    }

    fn is_refusal(error: &dyn DatabaseError) -> bool {
        error.code().is_some_and(|code| {
            code.starts_with(code::INTEGRITY_CLASS) || code.starts_with(code::DATA_EXCEPTION_CLASS)
        })
    }

    /// A ROLLBACK too many is a warning here.
    fn has_no_transaction(_error: &sqlx::Error) -> bool {
        false
    }

    fn is_full(error: &dyn DatabaseError) -> bool {
        error.code().is_some_and(|code| code == code::DISK_FULL)
    }

    fn explain(error: sqlx::Error, target: &PgConnectOptions) -> OpenError {
        let user = target.get_username().to_owned();
        let database = target.get_database().unwrap_or(&user).to_owned();
        if matches!(error, sqlx::Error::Io(_)) {
            let (host, port) = (target.get_host().to_owned(), target.get_port());
            return OpenError::Unreachable { host, port, source: error };
        }
        if matches!(error, sqlx::Error::Tls(_)) {
            return OpenError::Tls { source: error };
        }
        match error.as_database_error().and_then(DatabaseError::code).as_deref() {
            Some(code::UNKNOWN_DATABASE) => OpenError::NoDatabase { database, user },
            Some(code::INSUFFICIENT_PRIVILEGE) => OpenError::Denied { database, user },
            Some(code::DUPLICATE_TABLE) => OpenError::Foreign,
            Some(code) if code.starts_with(code::AUTHORIZATION_CLASS) => {
                OpenError::Login { user, source: error }
            }
            _ => OpenError::Failed(error),
        }
    }
}

/// The values of one column, for all rows.
enum Column {
    Int(Vec<Option<i64>>),
    Text(Vec<Option<String>>),
    Flag(Vec<Option<bool>>),
}

impl Column {
    fn starting_with(value: Value) -> Self {
        match value {
            Value::Int(value) => Self::Int(vec![value]),
            Value::Text(value) => Self::Text(vec![value]),
            Value::Flag(value) => Self::Flag(vec![value]),
        }
    }

    fn push(&mut self, value: Value) {
        match (self, value) {
            (Self::Int(values), Value::Int(value)) => values.push(value),
            (Self::Text(values), Value::Text(value)) => values.push(value),
            (Self::Flag(values), Value::Flag(value)) => values.push(value),
            (Self::Int(_) | Self::Text(_) | Self::Flag(_), _) => {
                unreachable!("invariant: a column has one type in all rows of a table")
            }
        }
    }
}

/// Turns rows on their side.
fn columns(rows: Vec<Row>) -> Vec<Column> {
    let mut rows = rows.into_iter();
    let first = rows.next().into_iter().flatten();
    let mut columns: Vec<_> = first.map(Column::starting_with).collect();
    for row in rows {
        for (column, value) in columns.iter_mut().zip(row) {
            column.push(value);
        }
    }
    columns
}

#[cfg(test)]
mod tests;
