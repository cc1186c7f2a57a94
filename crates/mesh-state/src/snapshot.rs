//! What is published: the whole tailnet at one moment, and what is different from the moment before.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_keys::{MachinePublic, NodePublic};
use mesh_model::{Node, PolicyVersionId, Tailnet, Timestamp, UserId};
use mesh_policy::{CompiledPolicy, PolicyDelta};
use roaring::RoaringBitmap;
use serde::Serialize;

use crate::Logins;

/// A tailnet at one moment. Cheap to clone: snapshots share what did not change between them.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Number of this snapshot since the process started, counting up by one.
    pub epoch: u64,
    /// Revision of the tailnet's row in the database.
    pub revision: u64,
    /// When it was published; whether a key has expired is judged by it.
    pub at: Timestamp,
    /// Users, nodes and keys.
    pub tailnet: Tailnet,
    /// Who may reach whom, compiled. It knows the nodes that peers are told of, and no others.
    pub policy: CompiledPolicy,
    /// Logins that wait for approval.
    pub logins: Logins,
}

impl Snapshot {
    /// Whether a register request of this machine for this key finds its node registered, so that no
    /// credential is asked for. The state decides the same; this spares verifying one.
    pub fn is_registered(&self, machine: MachinePublic, key: NodePublic, now: Timestamp) -> bool {
        let of_machine = |node: &&Arc<Node>| node.machine_key == machine;
        let known = self.tailnet.node_by_key(&key).filter(of_machine);
        known.is_some_and(|node| !node.is_expired(now))
            || self
                .tailnet
                .nodes_of_machine(machine)
                .any(|node| node.previous_node_key == Some(key))
    }
}

/// What the snapshot of an epoch may have different from the one before. Ids that are listed may turn out
/// the same; ids that are not listed are the same.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ChangeSet {
    /// Ids of nodes that were made, changed or removed.
    #[serde(serialize_with = "as_list")]
    pub nodes: RoaringBitmap,
    /// Ids of nodes that were online and still are, held by another stream than before. Peers see no difference; the
    /// stream that held the node before is over.
    #[serde(skip)]
    pub taken_over: RoaringBitmap,
    /// Ids of users that were made, changed or removed.
    pub users: BTreeSet<UserId>,
    /// The version of the policy that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<PolicyVersionId>,
    /// What policy may say otherwise. Routers whose routes it may show otherwise are in `nodes` too.
    #[serde(skip)]
    pub policy: PolicyDelta,
    /// Whether a node's key ran out by itself. Clients then apply their last complete netmap again, so
    /// everybody needs a complete one that is fresh.
    ///
    /// Source: tailscale `ipn/ipnlocal/local.go`, the timer for the next key expiry.
    #[serde(skip)]
    pub key_ran_out: bool,
    /// Whether a login that waits for approval came, went, or was decided. No node sees a difference.
    #[serde(skip)]
    pub logins: bool,
}

impl ChangeSet {
    /// Whether no stream could see a difference.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
            && self.taken_over.is_empty()
            && self.users.is_empty()
            && self.policy.is_empty()
            && !self.key_ran_out
    }

    /// Adds what a later epoch changed.
    pub fn extend(&mut self, later: &Self) {
        self.nodes |= &later.nodes;
        self.taken_over |= &later.taken_over;
        self.users.extend(&later.users);
        self.policy_version = later.policy_version.or(self.policy_version);
        self.policy.merge(&later.policy);
        self.key_ran_out |= later.key_ran_out;
        self.logins |= later.logins;
    }
}

fn as_list<S: serde::Serializer>(nodes: &RoaringBitmap, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(nodes)
}
