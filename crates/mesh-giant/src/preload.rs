//! From commands to rows: what the writer of a server does, without a server.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use mesh_db::{Database, Options};
use mesh_model::{TailnetId, Timestamp};
use mesh_state::{Command, Context, Draft, Outcome, Settings, State};
use mesh_store::Persist;

use crate::population::{Machine, Population};
use crate::progress::Progress;

/// The tailnet that a server serves.
const TAILNET: TailnetId = TailnetId(1);

/// How many nodes go into one transaction: what a commit costs beside its rows is then lost among them.
const BATCH_NODES: u32 = 2000;

/// After how many pages of log `SQLite` brings its file up to date: seldom, for nobody reads meanwhile.
pub(crate) const WAL_AUTOCHECKPOINT: u32 = 10_000;

/// When everything happens, in seconds since 1970: 2026-01-01. The clock would make every run another.
const SECOND: i64 = 1_767_225_600;

/// Fills the database with `nodes` machines of the population, all of them offline.
///
/// # Errors
/// When it does not open or has nodes or users already.
pub(crate) async fn run(options: &Options, population: Population, nodes: u32) -> Result<()> {
    let database = Database::open(options).await?;
    let filled = fill(&database, population, nodes).await;
    database.close().await;
    filled
}

async fn fill(database: &impl Persist, mut population: Population, nodes: u32) -> Result<()> {
    let mut tailnet = Tailnet::load(database).await?;
    tailnet
        .commit(|draft, context| {
            population.owners().try_for_each(|command| draft.apply(&command, context).map(drop))?;
            Ok(())
        })
        .await?;
    let mut progress = Progress::new(nodes.max(1));
    let mut done = 0;
    while done < nodes {
        let batch = BATCH_NODES.min(nodes - done);
        tailnet
            .commit(|draft, context| {
                (0..batch).try_for_each(|_| enroll(&population.machine(), draft, context))
            })
            .await?;
        done += batch;
        progress.show(done);
    }
    progress.finish();
    Ok(())
}

/// Has a machine join, tell of itself, and go: a node that peers are told of, and that is offline.
fn enroll(machine: &Machine, draft: &mut Draft, context: &Context) -> Result<()> {
    let registration = Command::Register(Box::new(machine.registration.clone()));
    let registered = draft.apply(&registration, context)?;
    let update = machine.update(&registered).context("a machine was not let in")?;
    let (node, node_key, disco_key) = (update.node, update.node_key, update.disco_key);
    let connected = draft.apply(&Command::Connect { node, node_key, disco_key }, context)?;
    let Outcome::Connected(session) = connected else { bail!("no stream: {connected:?}") };
    draft.apply(&Command::UpdateNode(Box::new(update)), context)?;
    draft.apply(&Command::Disconnect { node, session }, context)?;
    Ok(())
}

/// A tailnet on its way to the database.
struct Tailnet<'d, P> {
    database: &'d P,
    state: State,
    context: Context,
}

impl<'d, P: Persist> Tailnet<'d, P> {
    async fn load(database: &'d P) -> Result<Self> {
        let loaded = database.load(TAILNET).await?;
        let is_empty = loaded.tailnet.node_count() == 0 && loaded.tailnet.users().next().is_none();
        ensure!(is_empty, "the database has users or nodes: name an empty one");
        let now = Timestamp::from_second(SECOND)?;
        let state = State::new(TAILNET, loaded, Arc::default(), Settings::default(), now);
        Ok(Self { database, state, context: Context { now, entropy: 0 } })
    }

    /// Commits what `work` does to a draft.
    async fn commit(
        &mut self,
        work: impl FnOnce(&mut Draft, &Context) -> Result<()>,
    ) -> Result<()> {
        let mut draft = self.state.draft();
        work(&mut draft, &self.context)?;
        if let Some(batch) = draft.batch(self.context.now) {
            self.database.commit(&batch).await?;
        }
        self.state = draft.finish().0;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
