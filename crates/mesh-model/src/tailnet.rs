//! A whole tailnet, with the indexes that keep its lookups short.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_keys::{MachinePublic, NodePublic};
use rpds::{HashTrieMapSync, RedBlackTreeMapSync, RedBlackTreeSetSync};

use crate::{
    ApiKey, ApiKeyId, Node, NodeId, PolicyVersion, PolicyVersionId, PreauthKey, PreauthKeyId,
    Timestamp, User, UserId,
};

/// What is kept of a deleted node, so that its client can be told to log in again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tombstone {
    /// The installation the node belonged to.
    pub machine_key: MachinePublic,
    /// The node's last key.
    pub node_key: NodePublic,
    /// Its home region, where its machine is most likely found when it comes back.
    pub home_derp: Option<u32>,
    /// When it was deleted.
    pub deleted_at: Timestamp,
}

/// Everything a tailnet consists of. A clone shares all of it with its original.
#[derive(Debug, Clone, Default)]
pub struct Tailnet {
    users: RedBlackTreeMapSync<UserId, Arc<User>>,
    user_names: HashTrieMapSync<String, UserId>,
    nodes: RedBlackTreeMapSync<NodeId, Arc<Node>>,
    node_keys: HashTrieMapSync<NodePublic, NodeId>,
    machines: RedBlackTreeSetSync<(MachinePublic, NodeId)>,
    owners: RedBlackTreeSetSync<(UserId, NodeId)>,
    given_names: HashTrieMapSync<String, NodeId>,
    addresses: HashTrieMapSync<IpAddr, NodeId>,
    preauth_keys: RedBlackTreeMapSync<PreauthKeyId, Arc<PreauthKey>>,
    preauth_public_ids: HashTrieMapSync<String, PreauthKeyId>,
    api_keys: RedBlackTreeMapSync<ApiKeyId, Arc<ApiKey>>,
    api_public_ids: HashTrieMapSync<String, ApiKeyId>,
    tombstones: RedBlackTreeMapSync<(MachinePublic, NodePublic), Tombstone>,
    policy_versions: RedBlackTreeMapSync<PolicyVersionId, Arc<PolicyVersion>>,
}

impl Tailnet {
    /// All users, by id.
    pub fn users(&self) -> impl Iterator<Item = &Arc<User>> {
        self.users.values()
    }

    /// The user of this id.
    pub fn user(&self, id: UserId) -> Option<&Arc<User>> {
        self.users.get(&id)
    }

    /// The user of this name.
    pub fn user_by_name(&self, name: &str) -> Option<&Arc<User>> {
        self.user(*self.user_names.get(name)?)
    }

    /// All nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.nodes.size()
    }

    /// The node of this id.
    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    /// The node of this key.
    pub fn node_by_key(&self, key: &NodePublic) -> Option<&Arc<Node>> {
        self.node(*self.node_keys.get(key)?)
    }

    /// The node of this DNS label.
    pub fn node_by_name(&self, label: &str) -> Option<&Arc<Node>> {
        self.node(*self.given_names.get(label)?)
    }

    /// The node of this tailnet address.
    pub fn node_by_address(&self, address: IpAddr) -> Option<&Arc<Node>> {
        self.node(*self.addresses.get(&address)?)
    }

    /// The nodes of one installation, by id.
    pub fn nodes_of_machine(&self, machine_key: MachinePublic) -> impl Iterator<Item = &Arc<Node>> {
        let range = (machine_key, NodeId(0))..=(machine_key, NodeId(u32::MAX));
        self.machines.range(range).filter_map(|(_, id)| self.node(*id))
    }

    /// The nodes that clients show for a user, by id.
    pub fn nodes_of_user(&self, user: UserId) -> impl Iterator<Item = &Arc<Node>> {
        let range = (user, NodeId(0))..=(user, NodeId(u32::MAX));
        self.owners.range(range).filter_map(|(_, id)| self.node(*id))
    }

    /// All preauth keys, by id.
    pub fn preauth_keys(&self) -> impl Iterator<Item = &Arc<PreauthKey>> {
        self.preauth_keys.values()
    }

    /// The preauth key of this id.
    pub fn preauth_key(&self, id: PreauthKeyId) -> Option<&Arc<PreauthKey>> {
        self.preauth_keys.get(&id)
    }

    /// The preauth key of this public id.
    pub fn preauth_key_by_public_id(&self, public_id: &str) -> Option<&Arc<PreauthKey>> {
        self.preauth_key(*self.preauth_public_ids.get(public_id)?)
    }

    /// All API keys, by id.
    pub fn api_keys(&self) -> impl Iterator<Item = &Arc<ApiKey>> {
        self.api_keys.values()
    }

    /// The API key of this id.
    pub fn api_key(&self, id: ApiKeyId) -> Option<&Arc<ApiKey>> {
        self.api_keys.get(&id)
    }

    /// The API key of this public id.
    pub fn api_key_by_public_id(&self, public_id: &str) -> Option<&Arc<ApiKey>> {
        self.api_key(*self.api_public_ids.get(public_id)?)
    }

    /// All deleted nodes that are remembered.
    pub fn tombstones(&self) -> impl Iterator<Item = &Tombstone> {
        self.tombstones.values()
    }

    /// What is remembered of the deleted node of this machine and key.
    pub fn tombstone(&self, machine: MachinePublic, key: NodePublic) -> Option<&Tombstone> {
        self.tombstones.get(&(machine, key))
    }

    /// What is remembered of the deleted nodes of a machine.
    pub fn tombstones_of_machine(
        &self,
        machine: MachinePublic,
    ) -> impl Iterator<Item = &Tombstone> {
        let range = (machine, NodePublic::from_bytes([0; 32]))
            ..=(machine, NodePublic::from_bytes([255; 32]));
        self.tombstones.range(range).map(|(_, tombstone)| tombstone)
    }

    /// All versions of the policy that are kept, oldest first.
    pub fn policy_versions(&self) -> impl DoubleEndedIterator<Item = &Arc<PolicyVersion>> {
        self.policy_versions.values()
    }

    /// The policy's newest version; `None` if the tailnet never had a policy.
    pub fn policy_version(&self) -> Option<&Arc<PolicyVersion>> {
        self.policy_versions.last().map(|(_, version)| version)
    }

    /// Adds a user or replaces the one of its id.
    pub fn put_user(&mut self, user: Arc<User>) {
        self.remove_user(user.id);
        self.user_names.insert_mut(user.name.clone(), user.id);
        self.users.insert_mut(user.id, user);
    }

    /// Removes a user. Its nodes and keys are the caller's to settle first.
    pub fn remove_user(&mut self, id: UserId) -> Option<Arc<User>> {
        let user = self.users.get(&id)?.clone();
        self.users.remove_mut(&id);
        self.user_names.remove_mut(&user.name);
        Some(user)
    }

    /// Adds a node or replaces the one of its id.
    pub fn put_node(&mut self, node: Arc<Node>) {
        if self.node(node.id).is_some_and(|old| is_indexed_alike(old, &node)) {
            self.nodes.insert_mut(node.id, node);
            return;
        }
        self.remove_node(node.id);
        self.node_keys.insert_mut(node.node_key, node.id);
        self.machines.insert_mut((node.machine_key, node.id));
        self.owners.insert_mut((node.owner.user(), node.id));
        self.given_names.insert_mut(node.given_name.clone(), node.id);
        for address in node.addresses() {
            self.addresses.insert_mut(address, node.id);
        }
        self.nodes.insert_mut(node.id, node);
    }

    /// Removes a node, and with it its name and addresses.
    pub fn remove_node(&mut self, id: NodeId) -> Option<Arc<Node>> {
        let node = self.nodes.get(&id)?.clone();
        self.nodes.remove_mut(&id);
        self.node_keys.remove_mut(&node.node_key);
        self.machines.remove_mut(&(node.machine_key, id));
        self.owners.remove_mut(&(node.owner.user(), id));
        self.given_names.remove_mut(&node.given_name);
        for address in node.addresses() {
            self.addresses.remove_mut(&address);
        }
        Some(node)
    }

    /// Adds a preauth key or replaces the one of its id.
    pub fn put_preauth_key(&mut self, key: Arc<PreauthKey>) {
        self.preauth_public_ids.insert_mut(key.public_id.clone(), key.id);
        self.preauth_keys.insert_mut(key.id, key);
    }

    /// Removes a preauth key.
    pub fn remove_preauth_key(&mut self, id: PreauthKeyId) -> Option<Arc<PreauthKey>> {
        let key = self.preauth_keys.get(&id)?.clone();
        self.preauth_keys.remove_mut(&id);
        self.preauth_public_ids.remove_mut(&key.public_id);
        Some(key)
    }

    /// Adds an API key or replaces the one of its id.
    pub fn put_api_key(&mut self, key: Arc<ApiKey>) {
        self.api_public_ids.insert_mut(key.public_id.clone(), key.id);
        self.api_keys.insert_mut(key.id, key);
    }

    /// Removes an API key.
    pub fn remove_api_key(&mut self, id: ApiKeyId) -> Option<Arc<ApiKey>> {
        let key = self.api_keys.get(&id)?.clone();
        self.api_keys.remove_mut(&id);
        self.api_public_ids.remove_mut(&key.public_id);
        Some(key)
    }

    /// Remembers a deleted node.
    pub fn put_tombstone(&mut self, tombstone: Tombstone) {
        self.tombstones.insert_mut((tombstone.machine_key, tombstone.node_key), tombstone);
    }

    /// Forgets a deleted node.
    pub fn remove_tombstone(&mut self, machine: MachinePublic, key: NodePublic) -> bool {
        self.tombstones.remove_mut(&(machine, key))
    }

    /// Adds a version of the policy.
    pub fn put_policy_version(&mut self, version: Arc<PolicyVersion>) {
        self.policy_versions.insert_mut(version.id, version);
    }

    /// Forgets a version of the policy.
    pub fn remove_policy_version(&mut self, id: PolicyVersionId) -> bool {
        self.policy_versions.remove_mut(&id)
    }
}

/// Whether replacing one by the other leaves every index as it is, as most changes of a node do.
fn is_indexed_alike(old: &Node, new: &Node) -> bool {
    old.node_key == new.node_key
        && old.machine_key == new.machine_key
        && old.owner.user() == new.owner.user()
        && old.given_name == new.given_name
        && old.ipv4 == new.ipv4
        && old.ipv6 == new.ipv6
}
