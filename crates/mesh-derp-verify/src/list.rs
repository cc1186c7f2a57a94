//! The nodes that the control server has named, and what is done about those it has not.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_keys::NodePublic;
use mesh_relay::Admission;
use thiserror::Error;

use crate::line::Line;
use crate::stats::VerifyStats;

/// Keys that are remembered at most: ten times the largest tailnet, in some 64 MiB.
const KEYS_MAX: usize = 1 << 20;

/// The control server named more nodes than there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the list has more than {KEYS_MAX} nodes")]
pub(crate) struct TooManyKeys;

/// Whom a relay serves that follows a control server's list.
#[derive(Debug)]
pub(crate) struct NodeList {
    /// Those named; before the first list, those who were let in on trust.
    keys: Mutex<HashSet<NodePublic>>,
    /// Whether everybody is let in until the first list is there.
    fail_open: bool,
    stats: Arc<VerifyStats>,
}

impl NodeList {
    pub(crate) fn new(fail_open: bool, stats: Arc<VerifyStats>) -> Self {
        Self { keys: Mutex::default(), fail_open, stats }
    }

    /// Whether everybody is let in until the first list is there.
    pub(crate) fn is_open(&self) -> bool {
        self.fail_open
    }

    /// Puts a whole list in place of the one before, and returns who has lost their place by it.
    fn replace(&self, fresh: HashSet<NodePublic>) -> Vec<NodePublic> {
        self.stats.nodes.store(fresh.len() as u64, Ordering::Relaxed);
        let before = {
            let mut keys = self.lock();
            self.stats.has_list.store(true, Ordering::Relaxed);
            std::mem::replace(&mut *keys, fresh)
        };
        // The lock is taken for each: logins that wait for it must not wait for the whole list.
        before.into_iter().filter(|key| !self.lock().contains(key)).collect()
    }

    /// Changes the list, and returns who was on it and no longer is.
    fn change(&self, line: Line) -> Result<Vec<NodePublic>, TooManyKeys> {
        let mut keys = self.lock();
        if keys.len() + line.admitted.len() > KEYS_MAX {
            return Err(TooManyKeys);
        }
        let gone = line.removed.into_iter().filter(|key| keys.remove(key)).collect();
        keys.extend(line.admitted);
        self.stats.nodes.store(keys.len() as u64, Ordering::Relaxed);
        Ok(gone)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<NodePublic>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission for NodeList {
    fn admits(&self, key: &NodePublic) -> bool {
        let mut keys = self.lock();
        if self.stats.has_list() || !self.fail_open || keys.len() == KEYS_MAX {
            return keys.contains(key);
        }
        keys.insert(*key);
        true
    }
}

/// What one connection to the control server has said. The list of the connection before stays in force until
/// that of this one is complete.
#[derive(Debug)]
pub(crate) struct Telling {
    list: Arc<NodeList>,
    /// The list as far as it has come; `None` once it is complete.
    fresh: Option<HashSet<NodePublic>>,
}

impl Telling {
    pub(crate) fn new(list: Arc<NodeList>) -> Self {
        Self { list, fresh: Some(HashSet::new()) }
    }

    /// Whether the whole list has come.
    pub(crate) fn is_complete(&self) -> bool {
        self.fresh.is_none()
    }

    /// Takes in a line, and returns who is to be cut for it.
    pub(crate) fn handle_line(&mut self, line: Line) -> Result<Vec<NodePublic>, TooManyKeys> {
        let Some(fresh) = &mut self.fresh else { return self.list.change(line) };
        for key in &line.removed {
            fresh.remove(key);
        }
        fresh.extend(line.admitted);
        if fresh.len() > KEYS_MAX {
            return Err(TooManyKeys);
        }
        if !line.complete {
            return Ok(Vec::new());
        }
        Ok(self.list.replace(self.fresh.take().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests;
