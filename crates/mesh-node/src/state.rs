//! What a node keeps from one start to the next: its keys.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use mesh_keys::{MachinePrivate, NodePrivate};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version of the format that is written, and the newest that is read.
const VERSION: u32 = 1;

/// Most bytes of a stored state that are read.
const STATE_BYTES_MAX: u64 = 1 << 20;

/// Where a node keeps its state. What is saved must be whole or not there at all.
///
/// ```
/// use std::io;
/// use std::sync::{Arc, Mutex, PoisonError};
///
/// use mesh_node::{Node, StateStore};
///
/// /// Keeps the state in whatever the program keeps its own things in.
/// #[derive(Debug, Default)]
/// struct Drawer(Mutex<Option<Vec<u8>>>);
///
/// impl StateStore for Drawer {
///     fn load(&self) -> io::Result<Option<Vec<u8>>> {
///         Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
///     }
///
///     fn save(&self, state: &[u8]) -> io::Result<()> {
///         *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(state.to_vec());
///         Ok(())
///     }
/// }
///
/// # mesh_testkit::example(async |tailnet| {
/// let drawer = Arc::new(Drawer::default());
/// let node = Node::builder().control_url(tailnet.url()).state_store(drawer.clone()).build().await?;
/// assert!(drawer.load()?.is_some());
/// # drop(node);
/// # Ok(()) });
/// ```
pub trait StateStore: Send + Sync + std::fmt::Debug {
    /// What was saved last; `None` if nothing ever was.
    fn load(&self) -> io::Result<Option<Vec<u8>>>;
    /// Replaces it, and returns when that will outlive the process.
    fn save(&self, state: &[u8]) -> io::Result<()>;
}

/// Why a node's state cannot be used. What is stored stays as it is.
///
/// ```
/// # use mesh_node::Node;
/// # mesh_testkit::example(async |tailnet| {
/// use std::sync::Arc;
///
/// use mesh_node::{BuildError, MemoryStore, StateError, StateStore as _};
///
/// let store = Arc::new(MemoryStore::default());
/// store.save(b"what another program wrote")?;
/// let built = Node::builder().control_url(tailnet.url()).state_store(store).build().await;
/// assert!(matches!(built, Err(BuildError::State(StateError::Damaged(_)))));
/// # Ok(()) });
/// ```
#[derive(Debug, Error)]
pub enum StateError {
    /// The store failed.
    #[error("node state cannot be read or written")]
    Io(#[from] io::Error),
    /// It is cut off, or something else altogether.
    #[error("node state is damaged: restore it, or remove it to join as a new node")]
    Damaged(#[source] serde_json::Error),
    /// A key in it is none.
    #[error("node state holds a damaged key: restore it, or remove it to join as a new node")]
    Key(#[from] mesh_keys::ParseKeyError),
    /// A newer program wrote it.
    #[error(
        "node state is of version {found}, newer than {VERSION}: use the program that wrote it"
    )]
    Newer {
        /// Its version.
        found: u32,
    },
    /// The system has no randomness for keys.
    #[error("no randomness for keys")]
    Random(#[from] getrandom::Error),
}

/// The keys of a node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NodeState {
    pub(crate) machine: MachinePrivate,
    pub(crate) node: NodePrivate,
    /// Whether the control server has taken the node key.
    pub(crate) is_registered: bool,
}

/// A state as it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    #[serde(default)]
    machine_key: String,
    #[serde(default)]
    node_key: String,
    #[serde(default)]
    registered: bool,
}

impl NodeState {
    /// Loads the state, or makes and saves a first one.
    pub(crate) fn load_or_make(store: &dyn StateStore) -> Result<Self, StateError> {
        if let Some(bytes) = store.load()? {
            return Self::parse(&bytes);
        }
        let (machine, node) = (MachinePrivate::generate()?, NodePrivate::generate()?);
        let state = Self { machine, node, is_registered: false };
        state.save(store)?;
        Ok(state)
    }

    pub(crate) fn save(&self, store: &dyn StateStore) -> Result<(), StateError> {
        let stored = Stored {
            version: VERSION,
            machine_key: self.machine.expose_text(),
            node_key: self.node.expose_text(),
            registered: self.is_registered,
        };
        Ok(store.save(&serde_json::to_vec(&stored).map_err(StateError::Damaged)?)?)
    }

    fn parse(bytes: &[u8]) -> Result<Self, StateError> {
        let stored: Stored = serde_json::from_slice(bytes).map_err(StateError::Damaged)?;
        if stored.version > VERSION {
            return Err(StateError::Newer { found: stored.version });
        }
        Ok(Self {
            machine: stored.machine_key.parse()?,
            node: stored.node_key.parse()?,
            is_registered: stored.registered,
        })
    }
}

/// State in a file that only its owner can read, in a directory that one node at a time uses.
///
/// [`Builder::state_dir`](crate::Builder::state_dir) makes one. [Example](Self::open)
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    /// Locked for as long as the store is there.
    _lock: File,
}

impl FileStore {
    /// A store in `node.json` of a directory, which is made if it is missing.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let directory = directory.path().join("node");
    /// use mesh_node::{FileStore, StateStore as _};
    ///
    /// let store = FileStore::open(&directory)?;
    /// assert_eq!(store.load()?, None);
    /// let second = FileStore::open(&directory);
    /// assert!(second.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if another node uses the directory.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let lock = private_file().truncate(false).open(directory.join("node.lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => {
                let directory = directory.display();
                let text = format!("another node uses {directory}: give each node its own");
                return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
            }
        }
        Ok(Self { path: directory.join("node.json"), _lock: lock })
    }
}

impl StateStore for FileStore {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        let mut state = Vec::new();
        match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?.take(STATE_BYTES_MAX + 1).read_to_end(&mut state)?,
        };
        if state.len() as u64 > STATE_BYTES_MAX {
            let text = format!("{}: too long to be a node's state", self.path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Some(state))
    }

    fn save(&self, state: &[u8]) -> io::Result<()> {
        let new = self.path.with_extension("json.new");
        let mut file = private_file().truncate(true).open(&new)?;
        file.write_all(state)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

/// State that ends with the process, as ephemeral nodes have it.
///
/// ```
/// use mesh_node::{MemoryStore, StateStore as _};
///
/// let store = MemoryStore::default();
/// store.save(b"state")?;
/// assert_eq!(store.load()?.as_deref(), Some(&b"state"[..]));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Option<Vec<u8>>>);

impl StateStore for MemoryStore {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn save(&self, state: &[u8]) -> io::Result<()> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(state.to_vec());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
