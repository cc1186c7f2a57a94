//! Loading and committing, over either engine.

use std::io;
use std::time::Duration;

use mesh_model::TailnetId;
use mesh_state::{Batch, Loaded};
use mesh_store::PersistError;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use crate::engine::{Engine, Target};
use crate::failure::{Failure, in_time};
use crate::load::load;
use crate::migrations;
use crate::open::OpenError;
use crate::transaction::Transaction;

/// Longest wait for a connection, and for the answer to a ping.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Longest wait for the statements of a transaction, and again for its COMMIT. Who waits for the change is told earlier;
/// this is when we take the connection for lost.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Pause between attempts to find out what became of a COMMIT.
const SETTLE_PAUSE: Duration = Duration::from_millis(250);

/// A statement that says whether a connection is of any use.
const PING: &str = "SELECT 1 FROM tailnet LIMIT 1";

/// A database of one engine: a connection for the writer and one that answers pings. A connection in use is
/// taken out and put back when it is known to be in order, so that one whose user has failed or gone away is
/// closed, which ends its transaction; the next user makes another.
pub(crate) struct Store<E: Engine> {
    target: Target<E>,
    writer: Mutex<Option<E::Connection>>,
    pinger: Mutex<Option<E::Connection>>,
    /// Whether pings go over the writer's connection.
    is_shared: bool,
}

impl<E: Engine> Store<E> {
    /// Connects and brings the schema up to date.
    pub(crate) async fn open(target: Target<E>) -> Result<Self, OpenError> {
        let mut connection = timeout(CONNECT_MAX, target.connect())
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
            .map_err(|error| E::explain(error, &target))?;
        migrations::run(E::STEPS, &mut connection)
            .await
            .map_err(|error| OpenError::from_migrate::<E>(error, &target))?;
        greet::<E>(&mut connection).await.map_err(|error| E::explain(error, &target))?;
        let (writer, pinger) = (Mutex::new(Some(connection)), Mutex::new(None));
        Ok(Self { target, writer, pinger, is_shared: false })
    }

    /// Has pings go over the writer's connection, or over one of their own.
    pub(crate) fn share_connection(&mut self, is_shared: bool) {
        self.is_shared = is_shared;
    }

    /// Closes the connections in good order.
    pub(crate) async fn close(&self) {
        for kept in [&self.pinger, &self.writer] {
            if let Some(connection) = kept.lock().await.take()
                && let Err(error) = connection.close().await
            {
                tracing::warn!(%error, "a database connection did not close in good order");
            }
        }
    }

    /// [`Persist::ping`](mesh_store::Persist::ping).
    pub(crate) async fn ping(&self) -> Result<(), PersistError> {
        let connection = if self.is_shared { &self.writer } else { &self.pinger };
        let ping = async {
            let mut kept = connection.lock().await;
            *kept = Some(self.start(kept.take(), PING).await?);
            Ok(())
        };
        Ok(in_time(CONNECT_MAX, ping).await?)
    }

    /// [`Persist::load`](mesh_store::Persist::load).
    pub(crate) async fn load(&self, tailnet: TailnetId) -> Result<Loaded, PersistError> {
        let mut kept = self.writer.lock().await;
        let mut connection = in_time(CONNECT_MAX, self.start(kept.take(), PING)).await?;
        let loaded = load::<E>(&mut connection, tailnet).await?;
        *kept = Some(connection);
        Ok(loaded)
    }

    /// [`Persist::commit`](mesh_store::Persist::commit).
    pub(crate) async fn commit(&self, batch: &Batch) -> Result<(), PersistError> {
        let mut transaction = Transaction::new(batch)?;
        let mut kept = self.writer.lock().await;
        let begin = self.start(kept.take(), E::BEGIN_WRITE);
        let mut connection = in_time(ANSWER_MAX, begin).await?;
        match in_time(ANSWER_MAX, transaction.write::<E>(&mut connection)).await {
            Ok(()) => {}
            Err(answer) if answer.is_answer() => {
                *kept = rolled_back::<E>(connection).await;
                return Err(answer.into());
            }
            Err(failed) => return Err(failed.into()),
        }
        match in_time(ANSWER_MAX, transaction.commit::<E>(&mut connection)).await {
            Ok(()) => {
                *kept = Some(connection);
                Ok(())
            }
            Err(answer) if answer.is_answer() => {
                *kept = rolled_back::<E>(connection).await;
                Err(answer.into())
            }
            Err(unknown) => {
                drop(connection);
                Ok(self.settle(&transaction, unknown).await?)
            }
        }
    }

    /// Carries out `first` on the connection that was kept, or on another if that is of no use any more.
    async fn start(
        &self,
        kept: Option<E::Connection>,
        first: &'static str,
    ) -> Result<E::Connection, Failure> {
        if let Some(mut connection) = kept
            && E::run(&mut connection, first).await.is_ok()
        {
            return Ok(connection);
        }
        let mut connection = self.target.connect().await?;
        greet::<E>(&mut connection).await?;
        E::run(&mut connection, first).await?;
        Ok(connection)
    }

    /// Finds out whether a transaction took place whose COMMIT got no answer. There is no giving up: while
    /// the database is away, nothing else could be committed either.
    async fn settle(&self, transaction: &Transaction<'_>, unknown: Failure) -> Result<(), Failure> {
        tracing::warn!(error = %unknown, "a commit got no answer: asking what became of it");
        loop {
            match in_time(ANSWER_MAX, self.look(transaction)).await {
                Ok(nonce) => return transaction.judge(nonce, unknown),
                Err(error) => tracing::warn!(%error, "cannot find out what became of a commit"),
            }
            sleep(SETTLE_PAUSE).await;
        }
    }

    async fn look(&self, transaction: &Transaction<'_>) -> Result<Option<i64>, Failure> {
        let mut connection = self.start(None, E::BEGIN_WRITE).await?;
        transaction.find::<E>(&mut connection).await
    }
}

/// A connection after a transaction that was refused. One on which it may still be open is closed.
///
/// SQLite has often ended it by itself, and says so; a connection that took part in a full disk would not open again.
async fn rolled_back<E: Engine>(mut connection: E::Connection) -> Option<E::Connection> {
    let rolled_back = in_time(ANSWER_MAX, async {
        match E::run(&mut connection, "ROLLBACK").await {
            Err(error) if !E::has_no_transaction(&error) => Err(error.into()),
            _ => Ok(()),
        }
    });
    let is_in_order = rolled_back.await.is_ok();
    is_in_order.then_some(connection)
}

async fn greet<E: Engine>(connection: &mut E::Connection) -> Result<(), sqlx::Error> {
    match E::GREETING {
        Some(greeting) => E::run(connection, greeting).await,
        None => Ok(()),
    }
}
