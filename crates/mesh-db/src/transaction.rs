//! One batch as one transaction.

use futures_util::TryStreamExt as _;
use mesh_state::Batch;

use crate::engine::Engine;
use crate::failure::Failure;
use crate::record::{Readable as _, Row, row};
use crate::statement::{
    INSERT_CHANGE, LOCK_TAILNET, PRUNE_CHANGES, Run, SELECT_NONCE, UPDATE_TAILNET, plan,
};

/// How many changes of a tailnet are kept at least, for replicas that are behind.
const CHANGES_KEPT: u64 = 10_000;

/// Every so many revisions the older changes are forgotten: few rows at a time, and seldom.
const PRUNE_EVERY: u64 = 1_000;

/// A batch as it is sent.
pub(crate) struct Transaction<'b> {
    batch: &'b Batch,
    runs: Vec<Run>,
    /// Drawn for this attempt: whoever finds it in the log knows that the attempt succeeded.
    nonce: i64,
}

impl<'b> Transaction<'b> {
    /// Prepares a batch.
    pub(crate) fn new(batch: &'b Batch) -> Result<Self, Failure> {
        let nonce =
            getrandom::u64().map_err(|error| Failure::Failed(sqlx::Error::Io(error.into())))?;
        Ok(Self { batch, runs: plan(batch)?, nonce: nonce.cast_signed() })
    }

    /// Carries out all statements but the last, and parts with the rows. The transaction has begun.
    pub(crate) async fn write<E: Engine>(
        &mut self,
        connection: &mut E::Connection,
    ) -> Result<(), Failure> {
        let Batch { tailnet, revision, counters, change, at, .. } = self.batch;
        let advance = row![
            tailnet,
            revision,
            &self.nonce,
            &counters.user,
            &counters.node,
            &counters.preauth_key,
            &counters.api_key,
        ];
        if execute::<E>(connection, UPDATE_TAILNET, advance).await? == 0 {
            return Err(Failure::Overtaken);
        }
        for run in std::mem::take(&mut self.runs) {
            write_run::<E>(connection, run).await?;
        }
        let record = row![tailnet, revision, &self.nonce, at, change];
        execute::<E>(connection, INSERT_CHANGE, record).await?;
        if revision.is_multiple_of(PRUNE_EVERY) {
            let last = revision.saturating_sub(CHANGES_KEPT);
            execute::<E>(connection, PRUNE_CHANGES, row![tailnet, &last]).await?;
        }
        Ok(())
    }

    /// Makes it durable.
    pub(crate) async fn commit<E: Engine>(
        &self,
        connection: &mut E::Connection,
    ) -> Result<(), Failure> {
        E::run(connection, "COMMIT").await.map_err(Failure::of::<E>)
    }

    /// Looks up who made the revision, once the attempt is over for sure. Another transaction has begun.
    pub(crate) async fn find<E: Engine>(
        &self,
        connection: &mut E::Connection,
    ) -> Result<Option<i64>, Failure> {
        let Batch { tailnet, revision, .. } = self.batch;
        execute::<E>(connection, LOCK_TAILNET, row![tailnet]).await?;
        let arguments = E::arguments(row![tailnet, revision])?;
        let found = E::fetch(connection, SELECT_NONCE.to_owned(), arguments).try_next().await?;
        Ok(found.map(|row| row.int(0)).transpose()?.flatten())
    }

    /// Says what became of the attempt, by the nonce that its revision has in the log.
    pub(crate) fn judge(&self, found: Option<i64>, unknown: Failure) -> Result<(), Failure> {
        match found {
            Some(nonce) if nonce == self.nonce => Ok(()),
            Some(_) => Err(Failure::Overtaken),
            None => Err(unknown),
        }
    }
}

async fn write_run<E: Engine>(connection: &mut E::Connection, mut run: Run) -> Result<(), Failure> {
    let mut rest = std::mem::take(&mut run.rows);
    while !rest.is_empty() {
        let later = rest.split_off(E::rows_at_once(rest.len()));
        let rows = std::mem::replace(&mut rest, later);
        let count = rows.len() as u64;
        let (relation, arguments) = E::relation(rows)?;
        let touched = E::execute(connection, run.sql(&relation), arguments).await;
        let touched = touched.map_err(Failure::of::<E>)?;
        if let Some(guard) = run.guard()
            && touched != count
        {
            return Err(Failure::Refused(guard.to_owned()));
        }
    }
    Ok(())
}

async fn execute<E: Engine>(
    connection: &mut E::Connection,
    sql: &'static str,
    values: Row,
) -> Result<u64, Failure> {
    E::execute(connection, sql.to_owned(), E::arguments(values)?).await.map_err(Failure::of::<E>)
}

#[cfg(test)]
mod tests;
