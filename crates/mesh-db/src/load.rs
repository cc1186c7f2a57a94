//! Reading a whole tailnet, as it was at one moment.

use std::sync::Arc;

use futures_util::TryStreamExt as _;
use mesh_model::{ApiKey, Node, PolicyVersion, PreauthKey, TailnetId, Tombstone, User};
use mesh_state::{Counters, Loaded};

use crate::engine::Engine;
use crate::failure::Failure;
use crate::record::{Field as _, ReadError, Reader, Record, RowError, read_row, row};
use crate::statement::{INSERT_TAILNET, SELECT_TAILNET, TAILNET_COLUMNS, select};

/// Reads a tailnet, and makes its row if there is none.
pub(crate) async fn load<E: Engine>(
    connection: &mut E::Connection,
    tailnet: TailnetId,
) -> Result<Loaded, Failure> {
    let arguments = E::arguments(row![&tailnet])?;
    E::execute(connection, INSERT_TAILNET.to_owned(), arguments).await?;
    E::run(connection, E::BEGIN_READ).await?;
    let mut loaded = load_head::<E>(connection, tailnet).await?;
    let to = &mut loaded.tailnet;
    each::<E, User>(connection, tailnet, |user| to.put_user(Arc::new(user))).await?;
    each::<E, Node>(connection, tailnet, |node| to.put_node(Arc::new(node))).await?;
    each::<E, PreauthKey>(connection, tailnet, |key| to.put_preauth_key(Arc::new(key))).await?;
    each::<E, ApiKey>(connection, tailnet, |key| to.put_api_key(Arc::new(key))).await?;
    each::<E, Tombstone>(connection, tailnet, |tombstone| to.put_tombstone(tombstone)).await?;
    let keep = |version| to.put_policy_version(Arc::new(version));
    each::<E, PolicyVersion>(connection, tailnet, keep).await?;
    E::run(connection, "COMMIT").await?;
    Ok(loaded)
}

/// Reads the tailnet's own row.
async fn load_head<E: Engine>(
    connection: &mut E::Connection,
    tailnet: TailnetId,
) -> Result<Loaded, Failure> {
    let arguments = E::arguments(row![&tailnet])?;
    let mut rows = E::fetch(connection, SELECT_TAILNET.to_owned(), arguments);
    let row = rows.try_next().await?.ok_or(sqlx::Error::RowNotFound)?;
    let mut reader = Reader::new(&row, TAILNET_COLUMNS);
    read_head(&mut reader)
        .map_err(|source| RowError::new("tailnet", tailnet.to_string(), source).into())
}

fn read_head(reader: &mut Reader<'_>) -> Result<Loaded, ReadError> {
    Ok(Loaded {
        revision: u64::read(reader)?,
        counters: Counters {
            user: u64::read(reader)?,
            node: u32::read(reader)?,
            preauth_key: u64::read(reader)?,
            api_key: u64::read(reader)?,
        },
        ..Loaded::default()
    })
}

async fn each<E: Engine, R: Record>(
    connection: &mut E::Connection,
    tailnet: TailnetId,
    mut take: impl FnMut(R),
) -> Result<(), Failure> {
    let mut rows = E::fetch(connection, select::<R>(), E::arguments(row![&tailnet])?);
    while let Some(row) = rows.try_next().await? {
        take(read_row(&row)?);
    }
    Ok(())
}
