//! The schema's steps, built into the program. `migrations/README.md` tells how to add one.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};

/// The steps of one engine: file name and SQL, oldest first.
pub(crate) type Steps = &'static [(&'static str, &'static str)];

/// Takes each step from the folders of both engines.
macro_rules! steps {
    ($($name:literal),* $(,)?) => {
        /// The steps for SQLite.
        pub(crate) const SQLITE: Steps =
            &[$(($name, include_str!(concat!("../../../migrations/sqlite/", $name)))),*];

        /// The steps for Postgres.
        pub(crate) const POSTGRES: Steps =
            &[$(($name, include_str!(concat!("../../../migrations/postgres/", $name)))),*];
    };
}

steps!["20261121000000_tailnet.sql", "20261121140000_policy.sql"];

/// Brings the schema up to date.
pub(crate) async fn run(steps: Steps, connection: &mut impl Migrate) -> Result<(), MigrateError> {
    let migrations = steps.iter().map(|(name, sql)| migration(name, sql)).collect();
    // Not `run`, whose future the compiler cannot prove to be `Send`.
    Migrator::with_migrations(migrations).run_direct(None, connection, false).await
}

/// The version of the newest step.
pub(crate) fn newest(steps: Steps) -> i64 {
    steps.iter().map(|(name, _)| version(name)).max().unwrap_or_default()
}

fn migration(name: &'static str, sql: &'static str) -> Migration {
    let what = name.split_once('_').map_or(name, |(_, what)| what.trim_end_matches(".sql"));
    let kind = MigrationType::Simple;
    Migration::new(version(name), what.into(), kind, sql.into_sql_str(), false)
}

fn version(name: &str) -> i64 {
    let stamp = name.split('_').next().and_then(|stamp| stamp.parse().ok());
    stamp.expect("invariant: a test checks the names")
}

#[cfg(test)]
mod tests;
