//! What the two engines differ in. Everything else is written once, over [`Engine`].

pub(crate) mod postgres;
pub(crate) mod sqlite;

use futures_util::stream::BoxStream;
use sqlx::error::DatabaseError;
use sqlx::migrate::Migrate;
use sqlx::{ConnectOptions, Connection, Database};

use crate::migrations::Steps;
use crate::open::OpenError;
use crate::record::{Readable, Row};

/// How to reach a database of an engine.
pub(crate) type Target<E> = <<E as Database>::Connection as Connection>::Options;

/// A database engine.
pub(crate) trait Engine:
    Database<Connection: Connection<Options: ConnectOptions + Sync> + Migrate, Row: Readable>
{
    /// Its schema.
    const STEPS: Steps;
    /// Statements for every connection, once.
    const GREETING: Option<&'static str>;
    /// Starts a transaction that will write.
    const BEGIN_WRITE: &'static str;
    /// Starts a transaction that sees one moment of the database, however much it reads.
    const BEGIN_READ: &'static str;

    /// Carries out a statement without parameters.
    fn run(
        connection: &mut Self::Connection,
        sql: &'static str,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;

    /// Carries out a statement and returns how many rows it has touched.
    fn execute(
        connection: &mut Self::Connection,
        sql: String,
        arguments: Self::Arguments,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Carries out a query.
    fn fetch(
        connection: &mut Self::Connection,
        sql: String,
        arguments: Self::Arguments,
    ) -> BoxStream<'_, Result<Self::Row, sqlx::Error>>;

    /// The arguments for `$1`, `$2` and so on.
    fn arguments(values: Row) -> Result<Self::Arguments, sqlx::Error>;

    /// How many of `rows` rows go into one statement.
    fn rows_at_once(rows: usize) -> usize;

    /// Rows as a query that returns them, in order, and its arguments. There is at least one row.
    fn relation(rows: Vec<Row>) -> Result<(String, Self::Arguments), sqlx::Error>;

    /// Whether the database understood and refused: a constraint, or a value that it cannot hold.
    fn is_refusal(error: &dyn DatabaseError) -> bool;

    /// Whether this answer to a ROLLBACK says that there was nothing to roll back.
    fn has_no_transaction(error: &sqlx::Error) -> bool;

    /// Whether the database has no room left.
    fn is_full(error: &dyn DatabaseError) -> bool;

    /// Says why a database did not open and what to do about it.
    fn explain(error: sqlx::Error, target: &Target<Self>) -> OpenError;
}

/// The bodies that both engines have word for word, but only for their own types.
macro_rules! same_for_both {
    () => {
        async fn run(
            connection: &mut Self::Connection,
            sql: &'static str,
        ) -> Result<(), sqlx::Error> {
            sqlx::raw_sql(sql).execute(connection).await.map(drop)
        }

        async fn execute(
            connection: &mut Self::Connection,
            sql: String,
            arguments: Self::Arguments,
        ) -> Result<u64, sqlx::Error> {
            // The text is put together from constants; what comes from outside is in the arguments.
            let query = sqlx::query_with(sqlx::AssertSqlSafe(sql), arguments);
            Ok(query.execute(connection).await?.rows_affected())
        }

        fn fetch(
            connection: &mut Self::Connection,
            sql: String,
            arguments: Self::Arguments,
        ) -> futures_util::stream::BoxStream<'_, Result<Self::Row, sqlx::Error>> {
            sqlx::query_with(sqlx::AssertSqlSafe(sql), arguments).fetch(connection)
        }

        fn arguments(values: crate::record::Row) -> Result<Self::Arguments, sqlx::Error> {
            let mut arguments = Self::Arguments::default();
            for value in values {
                match value {
                    crate::record::Value::Int(value) => arguments.add(value),
                    crate::record::Value::Text(value) => arguments.add(value),
                    crate::record::Value::Flag(value) => arguments.add(value),
                }
                .map_err(sqlx::Error::Encode)?;
            }
            Ok(arguments)
        }
    };
}
use same_for_both;
