//! What a draft wants on disk, and what a disk gives back at the start.

use std::sync::Arc;

use mesh_keys::{MachinePublic, NodePublic};
use mesh_model::{
    ApiKey, ApiKeyId, Node, NodeId, PolicyVersion, PolicyVersionId, PreauthKey, PreauthKeyId,
    Tailnet, TailnetId, Timestamp, Tombstone, User, UserId,
};
use serde::{Deserialize, Serialize};

/// One row to write. Within a batch they take effect in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Insert the user or replace its row.
    PutUser(Arc<User>),
    /// Delete the user's row.
    DeleteUser(UserId),
    /// Insert the node or replace its row.
    PutNode(Arc<Node>),
    /// Delete the node's row.
    DeleteNode(NodeId),
    /// Insert the preauth key or replace its row.
    PutPreauthKey(Arc<PreauthKey>),
    /// Mark a single-use key used; a guard: the batch fails if the row says that it was used before.
    BurnPreauthKey {
        /// The key.
        key: PreauthKeyId,
        /// The node that uses it.
        node: NodeId,
        /// When.
        at: Timestamp,
    },
    /// Delete the preauth key's row.
    DeletePreauthKey(PreauthKeyId),
    /// Insert the API key or replace its row.
    PutApiKey(Arc<ApiKey>),
    /// Delete the API key's row.
    DeleteApiKey(ApiKeyId),
    /// Remember a deleted node.
    PutTombstone(Tombstone),
    /// Forget a deleted node.
    DeleteTombstone(MachinePublic, NodePublic),
    /// Insert the version of the policy or replace its row.
    PutPolicy(Arc<PolicyVersion>),
    /// Delete the row of a version of the policy.
    DeletePolicy(PolicyVersionId),
}

/// The ids to be given next. They live in the tailnet's row, so that an id is never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Next user id.
    pub user: u64,
    /// Next node id.
    pub node: u32,
    /// Next preauth key id.
    pub preauth_key: u64,
    /// Next API key id.
    pub api_key: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self { user: 1, node: 1, preauth_key: 1, api_key: 1 }
    }
}

/// One transaction: either all of it is on disk or nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The tailnet it belongs to.
    pub tailnet: TailnetId,
    /// The revision the tailnet has afterwards: one more than before. A guard: the batch fails if the row's
    /// revision is another.
    pub revision: u64,
    /// The next ids afterwards.
    pub counters: Counters,
    /// The rows, in order.
    pub writes: Vec<Write>,
    /// The `change` row's body: JSON of the ids that the batch touches, for replicas to read.
    pub change: String,
    /// When it was decided.
    pub at: Timestamp,
}

/// A tailnet as read from disk.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// All rows; every node is offline.
    pub tailnet: Tailnet,
    /// The next ids.
    pub counters: Counters,
    /// The revision of the tailnet's row.
    pub revision: u64,
}
