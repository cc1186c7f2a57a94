//! A database in memory, with the guards of a real one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_model::{ApiKey, Node, PolicyVersion, PreauthKey, Tailnet, TailnetId, Tombstone, User};
use mesh_state::{Batch, Counters, Loaded, Write};
use mesh_store::{Persist, PersistError};

/// Why a batch was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsError(pub &'static str);

/// All rows of a tailnet, as a database keeps them: written by [`Write`]s, and read back whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    revision: u64,
    counters: Counters,
    users: BTreeMap<u64, User>,
    nodes: BTreeMap<u32, Node>,
    preauth_keys: BTreeMap<u64, PreauthKey>,
    api_keys: BTreeMap<u64, ApiKey>,
    tombstones: BTreeMap<([u8; 32], [u8; 32]), Tombstone>,
    policy_versions: BTreeMap<u64, PolicyVersion>,
}

impl Rows {
    /// Takes a batch whole or not at all.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), RowsError> {
        if batch.revision != self.revision + 1 {
            return Err(RowsError("revision"));
        }
        let mut rows = self.clone();
        for write in &batch.writes {
            rows.write(write)?;
            rows.check_unique()?;
        }
        rows.revision = batch.revision;
        rows.counters = batch.counters;
        *self = rows;
        Ok(())
    }

    fn write(&mut self, write: &Write) -> Result<(), RowsError> {
        match write {
            Write::PutUser(user) => drop(self.users.insert(user.id.0, User::clone(user))),
            Write::DeleteUser(id) => drop(self.users.remove(&id.0)),
            Write::PutNode(node) => {
                drop(self.nodes.insert(node.id.0, Node { session: None, ..Node::clone(node) }));
            }
            Write::DeleteNode(id) => drop(self.nodes.remove(&id.0)),
            Write::PutPreauthKey(key) => {
                drop(self.preauth_keys.insert(key.id.0, PreauthKey::clone(key)));
            }
            Write::BurnPreauthKey { key, node, at } => {
                let key =
                    self.preauth_keys.get_mut(&key.0).ok_or(RowsError("burnt key is gone"))?;
                if key.used_at.is_some() {
                    return Err(RowsError("burnt twice"));
                }
                (key.used_at, key.used_by) = (Some(*at), Some(*node));
            }
            Write::DeletePreauthKey(id) => drop(self.preauth_keys.remove(&id.0)),
            Write::PutApiKey(key) => drop(self.api_keys.insert(key.id.0, ApiKey::clone(key))),
            Write::DeleteApiKey(id) => drop(self.api_keys.remove(&id.0)),
            Write::PutTombstone(tombstone) => {
                let id = (*tombstone.machine_key.as_bytes(), *tombstone.node_key.as_bytes());
                self.tombstones.insert(id, *tombstone);
            }
            Write::DeleteTombstone(machine, key) => {
                self.tombstones.remove(&(*machine.as_bytes(), *key.as_bytes()));
            }
            Write::PutPolicy(version) => {
                drop(self.policy_versions.insert(version.id.0, PolicyVersion::clone(version)));
            }
            Write::DeletePolicy(id) => drop(self.policy_versions.remove(&id.0)),
        }
        Ok(())
    }

    fn check_unique(&self) -> Result<(), RowsError> {
        let nodes = || self.nodes.values();
        all_distinct(nodes().map(|node| node.node_key), "node key")?;
        all_distinct(nodes().map(|node| &node.given_name), "given name")?;
        all_distinct(nodes().flat_map(Node::addresses), "address")?;
        all_distinct(self.users.values().map(|user| &user.name), "user name")?;
        all_distinct(self.preauth_keys.values().map(|key| &key.public_id), "public id")
    }

    /// Reads everything back.
    pub fn load(&self) -> Loaded {
        let mut tailnet = Tailnet::default();
        for user in self.users.values() {
            tailnet.put_user(user.clone().into());
        }
        for node in self.nodes.values() {
            tailnet.put_node(node.clone().into());
        }
        for key in self.preauth_keys.values() {
            tailnet.put_preauth_key(key.clone().into());
        }
        for key in self.api_keys.values() {
            tailnet.put_api_key(key.clone().into());
        }
        for tombstone in self.tombstones.values() {
            tailnet.put_tombstone(*tombstone);
        }
        for version in self.policy_versions.values() {
            tailnet.put_policy_version(version.clone().into());
        }
        Loaded { tailnet, counters: self.counters, revision: self.revision }
    }
}

fn all_distinct<T: Ord>(
    items: impl Iterator<Item = T>,
    what: &'static str,
) -> Result<(), RowsError> {
    let mut seen = BTreeSet::new();
    for item in items {
        if !seen.insert(item) {
            return Err(RowsError(what));
        }
    }
    Ok(())
}

/// Picks the writes that are refused.
type Guard = fn(&Write) -> bool;

/// A database that is gone with the process, and that can be told to fail.
#[derive(Debug, Default)]
pub struct MemoryDatabase {
    rows: Mutex<Rows>,
    is_down: AtomicBool,
    guard: Mutex<Option<Guard>>,
    commits: Mutex<Vec<usize>>,
    /// Held while commits are to wait.
    gate: Arc<tokio::sync::Mutex<()>>,
}

impl MemoryDatabase {
    /// What it holds.
    pub fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes it unreachable, or reachable again.
    pub fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Refuses batches that hold a write that `is_refused`.
    pub fn refuse(&self, is_refused: fn(&Write) -> bool) {
        *self.guard.lock().unwrap_or_else(PoisonError::into_inner) = Some(is_refused);
    }

    /// How many rows each committed batch wrote.
    pub fn commits(&self) -> Vec<usize> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has commits wait until what is returned is dropped.
    pub async fn stall(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.gate.clone().lock_owned().await
    }

    /// Writes an empty batch behind the store's back, as a second server does.
    pub fn overtake(&self) {
        self.rows().revision += 1;
    }

    fn check(&self) -> Result<(), PersistError> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(PersistError::Unavailable("the test took it down".into()));
        }
        Ok(())
    }
}

impl Persist for MemoryDatabase {
    async fn load(&self, _tailnet: TailnetId) -> Result<Loaded, PersistError> {
        self.check()?;
        Ok(self.rows().load())
    }

    async fn commit(&self, batch: &Batch) -> Result<(), PersistError> {
        drop(self.gate.lock().await);
        self.check()?;
        let guard = *self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.is_some_and(|is_refused| batch.writes.iter().any(is_refused)) {
            return Err(PersistError::Conflict { what: "the test's guard".to_owned() });
        }
        let mut rows = self.rows();
        if batch.revision != rows.revision + 1 {
            return Err(PersistError::Overtaken);
        }
        rows.commit(batch)
            .map_err(|RowsError(what)| PersistError::Conflict { what: what.to_owned() })?;
        drop(rows);
        self.commits.lock().unwrap_or_else(PoisonError::into_inner).push(batch.writes.len());
        Ok(())
    }

    async fn ping(&self) -> Result<(), PersistError> {
        self.check()
    }
}
