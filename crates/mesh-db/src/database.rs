//! The database, whichever engine it is.

use std::fmt;

use mesh_model::TailnetId;
use mesh_state::{Batch, Loaded};
use mesh_store::{Persist, PersistError};
use sqlx::{Postgres, Sqlite};

use crate::engine::{postgres, sqlite};
use crate::open::OpenError;
use crate::options::Options;
use crate::store::Store;

/// A database that keeps tailnets. It holds one connection that writes, and one that answers pings.
pub struct Database(Engines);

enum Engines {
    Sqlite(Store<Sqlite>),
    Postgres(Store<Postgres>),
}

/// Calls the same method of either engine.
macro_rules! either {
    ($database:expr, $store:ident => $call:expr) => {
        match &$database.0 {
            Engines::Sqlite($store) => $call,
            Engines::Postgres($store) => $call,
        }
    };
}

impl Database {
    /// Opens a database and brings its schema up to date.
    ///
    /// # Errors
    /// [`OpenError`] says what the operator can do.
    pub async fn open(options: &Options) -> Result<Self, OpenError> {
        Ok(Self(match options {
            Options::Sqlite { path, write_ahead_log, wal_autocheckpoint } => {
                sqlite::prepare(path)?;
                let target = sqlite::target(path, *write_ahead_log, *wal_autocheckpoint);
                Engines::Sqlite(Store::open(target).await?)
            }
            Options::Postgres(options) => {
                Engines::Postgres(Store::open(postgres::target(options)?).await?)
            }
        }))
    }

    /// Holds at most this many connections; it never needs more than two. A single one is the writer's, and pings wait
    /// for it.
    #[must_use]
    pub fn with_connections_max(mut self, connections: u32) -> Self {
        match &mut self.0 {
            Engines::Sqlite(store) => store.share_connection(connections < 2),
            Engines::Postgres(store) => store.share_connection(connections < 2),
        }
        self
    }

    /// Closes the connections in good order: SQLite then has everything in one file.
    pub async fn close(&self) {
        either!(self, store => store.close().await);
    }
}

impl Persist for Database {
    async fn load(&self, tailnet: TailnetId) -> Result<Loaded, PersistError> {
        either!(self, store => store.load(tailnet).await)
    }

    async fn commit(&self, batch: &Batch) -> Result<(), PersistError> {
        either!(self, store => store.commit(batch).await)
    }

    async fn ping(&self) -> Result<(), PersistError> {
        either!(self, store => store.ping().await)
    }
}

impl fmt::Debug for Database {
    /// Which engine it is; how to reach it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engine = match &self.0 {
            Engines::Sqlite(_) => "Sqlite",
            Engines::Postgres(_) => "Postgres",
        };
        write!(f, "Database({engine})")
    }
}
