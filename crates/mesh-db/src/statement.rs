//! What a batch says in SQL. The same text serves both engines.

use std::collections::HashSet;

use mesh_model::{ApiKey, Node, PolicyVersion, PreauthKey, Tombstone, User};
use mesh_state::{Batch, Write};

use crate::record::{Record, Row, Table, Unfit, row, write_row};

/// Makes a tailnet's row.
pub(crate) const INSERT_TAILNET: &str =
    "INSERT INTO tailnet (id) VALUES ($1) ON CONFLICT (id) DO NOTHING";

/// The columns of [`SELECT_TAILNET`].
pub(crate) const TAILNET_COLUMNS: &[&str] =
    &["rev", "next_user_id", "next_node_id", "next_preauth_key_id", "next_api_key_id"];

/// Reads a tailnet's row.
pub(crate) const SELECT_TAILNET: &str = "
    SELECT rev, next_user_id, next_node_id, next_preauth_key_id, next_api_key_id
    FROM tailnet WHERE id = $1";

/// Raises a tailnet's revision. The guard of every transaction, and the lock that puts them in order.
pub(crate) const UPDATE_TAILNET: &str = "
    UPDATE tailnet SET rev = $2, nonce = $3, next_user_id = $4, next_node_id = $5,
        next_preauth_key_id = $6, next_api_key_id = $7
    WHERE id = $1 AND rev = $2 - 1";

/// Waits for a transaction on the tailnet that may still be under way.
pub(crate) const LOCK_TAILNET: &str = "UPDATE tailnet SET nonce = nonce WHERE id = $1";

/// Logs a transaction, linked to the one before.
pub(crate) const INSERT_CHANGE: &str = "
    INSERT INTO change (tailnet, rev, nonce, prev_nonce, decided_at, body)
    SELECT $1, $2, $3,
        COALESCE((SELECT nonce FROM change WHERE tailnet = $1 AND rev = $2 - 1), 0), $4, $5";

/// Finds out who made a revision.
pub(crate) const SELECT_NONCE: &str = "SELECT nonce FROM change WHERE tailnet = $1 AND rev = $2";

/// Forgets old changes.
pub(crate) const PRUNE_CHANGES: &str = "DELETE FROM change WHERE tailnet = $1 AND rev <= $2";

/// What is done to rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Put,
    Delete,
    /// Only of preauth keys: marks single-use keys as used.
    Burn,
}

/// One write.
#[derive(Debug)]
struct Step {
    table: &'static Table,
    verb: Verb,
    row: Row,
}

/// Writes that go out together: the same is done to each row, and no two have the same key.
#[derive(Debug)]
pub(crate) struct Run {
    table: &'static Table,
    verb: Verb,
    pub(crate) rows: Vec<Row>,
}

/// Puts a batch's writes into as few runs as keep their order within each table. Between tables there is
/// none: foreign keys are checked at the end.
pub(crate) fn plan(batch: &Batch) -> Result<Vec<Run>, Unfit> {
    let mut steps: Vec<_> =
        batch.writes.iter().map(|write| step(batch, write)).collect::<Result<_, _>>()?;
    steps.sort_by_key(|step| step.table.name);
    let mut runs: Vec<Run> = Vec::new();
    let mut keys = HashSet::new();
    for Step { table, verb, row } in steps {
        let key = row[..table.key.len()].to_vec();
        match runs.last_mut() {
            Some(run)
                if run.table.name == table.name && run.verb == verb && !keys.contains(&key) =>
            {
                run.rows.push(row);
            }
            _ => {
                keys.clear();
                runs.push(Run { table, verb, rows: vec![row] });
            }
        }
        keys.insert(key);
    }
    Ok(runs)
}

fn step(batch: &Batch, write: &Write) -> Result<Step, Unfit> {
    let tailnet = &batch.tailnet;
    Ok(match write {
        Write::PutUser(user) => put(batch, &**user)?,
        Write::DeleteUser(id) => delete::<User>(row![tailnet, id]),
        Write::PutNode(node) => put(batch, &**node)?,
        Write::DeleteNode(id) => delete::<Node>(row![tailnet, id]),
        Write::PutPreauthKey(key) => put(batch, &**key)?,
        Write::BurnPreauthKey { key, node, at } => {
            Step { table: PreauthKey::TABLE, verb: Verb::Burn, row: row![tailnet, key, node, at] }
        }
        Write::DeletePreauthKey(id) => delete::<PreauthKey>(row![tailnet, id]),
        Write::PutApiKey(key) => put(batch, &**key)?,
        Write::DeleteApiKey(id) => delete::<ApiKey>(row![tailnet, id]),
        Write::PutTombstone(tombstone) => put(batch, tombstone)?,
        Write::DeleteTombstone(machine_key, node_key) => {
            delete::<Tombstone>(row![tailnet, machine_key, node_key])
        }
        Write::PutPolicy(version) => put(batch, &**version)?,
        Write::DeletePolicy(id) => delete::<PolicyVersion>(row![tailnet, id]),
    })
}

fn put<R: Record>(batch: &Batch, record: &R) -> Result<Step, Unfit> {
    Ok(Step { table: R::TABLE, verb: Verb::Put, row: write_row(batch.tailnet, record)? })
}

fn delete<R: Record>(key: Row) -> Step {
    Step { table: R::TABLE, verb: Verb::Delete, row: key }
}

impl Run {
    /// The statement, around a query that returns the rows.
    pub(crate) fn sql(&self, rows: &str) -> String {
        let Table { name, key, columns } = self.table;
        let keys = key.join(", ");
        match self.verb {
            Verb::Put => {
                let names = columns.join(", ");
                let replaced: Vec<_> = columns[key.len()..]
                    .iter()
                    .map(|column| format!("{column} = excluded.{column}"))
                    .collect();
                format!(
                    "INSERT INTO {name} ({names}) {rows} ON CONFLICT ({keys}) DO UPDATE SET {}",
                    replaced.join(", ")
                )
            }
            Verb::Delete => format!("DELETE FROM {name} WHERE ({keys}) IN ({rows})"),
            Verb::Burn => format!(
                "WITH used (tailnet, id, node, at) AS ({rows})
                 UPDATE preauth_key SET used_at = used.at, used_by = used.node FROM used
                 WHERE preauth_key.tailnet = used.tailnet AND preauth_key.id = used.id
                     AND preauth_key.used_at IS NULL"
            ),
        }
    }

    /// What it means if fewer rows are touched than there are; `None` if it means nothing.
    pub(crate) fn guard(&self) -> Option<&'static str> {
        match self.verb {
            Verb::Burn => Some("a single-use preauth key was used before"),
            Verb::Put | Verb::Delete => None,
        }
    }
}

/// Reads all records of a tailnet.
pub(crate) fn select<R: Record>() -> String {
    let Table { name, columns, .. } = R::TABLE;
    format!("SELECT {} FROM {name} WHERE tailnet = $1", columns.join(", "))
}

#[cfg(test)]
mod tests;
