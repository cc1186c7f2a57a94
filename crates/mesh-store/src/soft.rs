//! Soft commands that wait for the writer: for each node what it said last.
//!
//! They stand beside the queue, so that a storm of them delays nobody who waits for an answer, and a hundred updates of
//! a node become one. There is at most one of a kind for each node and API key, so the tailnet itself is their bound;
//! they also wait out a database that is away.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mesh_keys::NodePublic;
use mesh_model::{ApiKeyId, NodeId};
use mesh_state::Command;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::handle::Request;

/// What soft commands coalesce by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Slot {
    /// Updates of a node, by the key that they were made with: one of an older key changes nothing, so it must not
    /// take the place of one that does.
    Update(NodeId, NodePublic),
    /// The end of a node's stream.
    Departure(NodeId),
    /// Use of an API key.
    Touch(ApiKeyId),
}

/// Soft commands that wait.
#[derive(Debug, Default)]
pub(crate) struct Soft {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    commands: HashMap<Slot, (Command, Instant)>,
    /// In which order they came.
    order: VecDeque<Slot>,
}

impl Soft {
    /// Adds a command, or what it says to the one that waits in its place.
    pub(crate) fn put(&self, command: Command) {
        let Some(slot) = slot(&command) else {
            debug_assert!(false, "not a command that may be lost: {command:?}");
            return;
        };
        let mut waiting = self.lock();
        let Waiting { commands, order } = &mut *waiting;
        match commands.entry(slot) {
            Entry::Occupied(mut entry) => {
                let (earlier, at) = entry.get().clone();
                entry.insert((coalesce(earlier, command), at));
            }
            Entry::Vacant(entry) => {
                entry.insert((command, Instant::now()));
                order.push_back(slot);
            }
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Puts back what could not be carried out, under what came since, and in front of everything else.
    pub(crate) fn put_back(&self, command: Command, at: Instant) {
        let Some(slot) = slot(&command) else { return };
        let mut waiting = self.lock();
        let command = if let Some((later, _)) = waiting.commands.remove(&slot) {
            coalesce(command, later)
        } else {
            waiting.order.push_front(slot);
            command
        };
        waiting.commands.insert(slot, (command, at));
    }

    /// Takes those that have waited longest.
    pub(crate) fn take(&self, max: usize) -> Vec<Request> {
        let mut waiting = self.lock();
        let Waiting { commands, order } = &mut *waiting;
        let count = order.len().min(max);
        let taken = order.drain(..count).filter_map(|slot| commands.remove(&slot));
        taken.map(|(command, at)| Request { command, at, reply: None }).collect()
    }

    /// Ends when there is something to take.
    pub(crate) async fn some_wait(&self) {
        while self.len() == 0 {
            self.arrived.notified().await;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().order.len()
    }

    /// Nothing under the lock panics half-way.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a command waits; `None` if it is none of those that coalesce.
fn slot(command: &Command) -> Option<Slot> {
    if let Command::UpdateNode(update) = command {
        Some(Slot::Update(update.node, update.node_key))
    } else if let Command::Disconnect { node, .. } = command {
        Some(Slot::Departure(*node))
    } else if let Command::TouchApiKey { key } = command {
        Some(Slot::Touch(*key))
    } else {
        None
    }
}

/// What two commands of a slot say together.
fn coalesce(earlier: Command, later: Command) -> Command {
    match (earlier, later) {
        (Command::UpdateNode(earlier), Command::UpdateNode(later)) => {
            Command::UpdateNode(Box::new(earlier.followed_by(*later)))
        }
        // Sessions count up: the end of an older stream means nothing once a newer one was there.
        (
            Command::Disconnect { node, session: earlier },
            Command::Disconnect { session: later, .. },
        ) => Command::Disconnect { node, session: earlier.max(later) },
        (_, later) => later,
    }
}

#[cfg(test)]
mod tests;
