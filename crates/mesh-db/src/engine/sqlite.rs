//! SQLite: one file, one connection that writes.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::sqlite::{
    Sqlite, SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous,
};
use sqlx::{Arguments as _, ConnectOptions as _};

use super::{Engine, same_for_both};
use crate::migrations::{self, Steps};
use crate::open::OpenError;
use crate::record::Row;

/// How long we wait for another program that writes to the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Most rows in one statement: the gain is in the first few, and the text of each length is prepared once.
const ROWS_MAX: usize = 32;

/// Result codes. Source: `sqlite3.h`; the low byte of an extended code is its primary one.
mod code {
    pub(super) const BUSY: i32 = 5;
    pub(super) const FULL: i32 = 13;
    pub(super) const CONSTRAINT: i32 = 19;
    pub(super) const NOT_A_DATABASE: i32 = 26;
}

/// How to open the file; `synchronous=FULL`: what was committed survives a power cut.
pub(crate) fn target(
    path: &Path,
    write_ahead_log: bool,
    wal_autocheckpoint: u32,
) -> SqliteConnectOptions {
    let journal = if write_ahead_log { SqliteJournalMode::Wal } else { SqliteJournalMode::Delete };
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(journal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("wal_autocheckpoint", wal_autocheckpoint.to_string())
        .disable_statement_logging()
}

/// Makes the file if it is not there, for us alone to read; SQLite gives its log the same permissions.
pub(crate) fn prepare(path: &Path) -> Result<(), OpenError> {
    let made = make_folder(path).and_then(|()| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
    });
    made.map(drop).map_err(|source| OpenError::File { path: path.to_owned(), source })
}

fn make_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)
        }
        _ => Ok(()),
    }
}

impl Engine for Sqlite {
    const STEPS: Steps = migrations::SQLITE;
    const GREETING: Option<&'static str> = None;
    const BEGIN_WRITE: &'static str = "BEGIN IMMEDIATE";
    const BEGIN_READ: &'static str = "BEGIN";

    same_for_both!();

    fn rows_at_once(rows: usize) -> usize {
        // Powers of two, so that few texts serve all numbers of rows.
        rows.checked_ilog2().map_or(0, |log| 1 << log).min(ROWS_MAX)
    }

    /// `VALUES (?, ?), (?, ?)`. Numbered parameters would make SQLite search its list of names for each.
    fn relation(rows: Vec<Row>) -> Result<(String, SqliteArguments), sqlx::Error> {
        let row = format!("({})", vec!["?"; rows[0].len()].join(","));
        let sql = format!("VALUES {}", vec![row; rows.len()].join(","));
        Ok((sql, Self::arguments(rows.into_iter().flatten().collect())?))
    }

    fn is_refusal(error: &dyn DatabaseError) -> bool {
        primary_code(error) == Some(code::CONSTRAINT)
    }

    fn has_no_transaction(error: &sqlx::Error) -> bool {
        // The code is that of any mistake. Source: SQLite `src/vdbe.c`, OP_AutoCommit.
        error.to_string().contains("no transaction is active")
    }

    fn is_full(error: &dyn DatabaseError) -> bool {
        primary_code(error) == Some(code::FULL)
    }

    fn explain(error: sqlx::Error, target: &SqliteConnectOptions) -> OpenError {
        let path = target.get_filename().to_owned();
        match error.as_database_error().and_then(primary_code) {
            Some(code::NOT_A_DATABASE) => OpenError::NotADatabase { path },
            Some(code::BUSY) => OpenError::Locked { path },
            _ if error.to_string().contains("already exists") => OpenError::Foreign,
            _ => OpenError::Failed(error),
        }
    }
}

fn primary_code(error: &dyn DatabaseError) -> Option<i32> {
    Some(error.code()?.parse::<i32>().ok()? & 0xff)
}

#[cfg(test)]
mod tests;
