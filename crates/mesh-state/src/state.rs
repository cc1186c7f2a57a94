//! The state, and drafts of its successor.

use std::collections::HashMap;
use std::sync::Arc;

use mesh_model::{
    ApiKey, ApiKeyId, Node, NodeId, PolicyVersion, PolicyVersionId, PreauthKey, PreauthKeyId,
    SessionId, Tailnet, TailnetId, Timestamp, Tombstone, User, UserId,
};
use mesh_policy::{CompiledPolicy, NodeFacts, Policy, PolicyDelta, UserFacts};

use crate::addresses::AddressCursor;
use crate::deadlines::Deadlines;
use crate::labels::Labels;
use crate::nodes::PRESUMED;
use crate::{
    Batch, ChangeSet, Command, Context, Counters, Loaded, Logins, Outcome, Refusal, Settings,
    Snapshot, Write,
};

/// The state of one tailnet. A clone shares what it holds with its original.
#[derive(Debug, Clone)]
pub struct State {
    pub(crate) id: TailnetId,
    pub(crate) settings: Arc<Settings>,
    pub(crate) tailnet: Tailnet,
    pub(crate) policy: CompiledPolicy,
    pub(crate) logins: Logins,
    pub(crate) counters: Counters,
    pub(crate) deadlines: Deadlines,
    pub(crate) addresses: AddressCursor,
    pub(crate) labels: Labels,
    pub(crate) last_session: SessionId,
    revision: u64,
    epoch: u64,
}

impl State {
    /// Takes up a tailnet as it was read from disk, with the policy that is to be in force: that of the newest
    /// version, or of the file that stands above it. There is no way to leave it out, so that no error on the way
    /// to a policy can end in none.
    pub fn new(
        id: TailnetId,
        loaded: Loaded,
        policy: Arc<Policy>,
        settings: Settings,
        now: Timestamp,
    ) -> Self {
        let tailnet = presumed_online(loaded.tailnet);
        let mut state = Self {
            id,
            settings: Arc::new(settings),
            policy: compile(policy, &tailnet),
            tailnet,
            logins: Logins::default(),
            counters: loaded.counters,
            deadlines: Deadlines::default(),
            addresses: AddressCursor::default(),
            labels: Labels::default(),
            last_session: SessionId(0),
            revision: loaded.revision,
            epoch: 1,
        };
        state.deadlines.add_restart_grace(&state.settings, now);
        for node in state.tailnet.nodes() {
            state.deadlines.add_node(node, &state.settings, now);
        }
        for key in state.tailnet.preauth_keys() {
            state.deadlines.add_preauth_key(key, &state.settings);
        }
        for tombstone in state.tailnet.tombstones() {
            state.deadlines.add_tombstone(tombstone);
        }
        state
    }

    /// The state as it is published.
    pub fn snapshot(&self, now: Timestamp) -> Snapshot {
        Snapshot {
            epoch: self.epoch,
            revision: self.revision,
            at: now,
            tailnet: self.tailnet.clone(),
            policy: self.policy.clone(),
            logins: self.logins.clone(),
        }
    }

    /// When [`Command::Sweep`] next has something to do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.next().into_iter().chain(self.logins.next_expiry()).min()
    }

    /// Starts a draft of the next state.
    pub fn draft(&self) -> Draft {
        Draft {
            state: self.clone(),
            writes: Vec::new(),
            node_writes: HashMap::new(),
            changes: ChangeSet::default(),
        }
    }
}

/// Nodes without a time of departure were online when the last process ended.
fn presumed_online(mut tailnet: Tailnet) -> Tailnet {
    let was_online = |node: &&Arc<Node>| node.is_announced() && node.last_seen_at.is_none();
    let online: Vec<_> = tailnet.nodes().filter(was_online).cloned().collect();
    for node in online {
        tailnet.put_node(Arc::new(Node { session: Some(PRESUMED), ..Node::clone(&node) }));
    }
    tailnet
}

/// Compiles a policy for all users, and for the nodes that peers are told of.
fn compile(policy: Arc<Policy>, tailnet: &Tailnet) -> CompiledPolicy {
    let announced = tailnet.nodes().filter(|node| node.is_announced());
    CompiledPolicy::compile(
        policy,
        tailnet.users().map(|user| UserFacts::from(&**user)),
        announced.map(|node| NodeFacts::from(&**node)),
    )
}

/// The next state in the making: commands change it, then it is committed or dropped.
#[derive(Debug, Clone)]
pub struct Draft {
    pub(crate) state: State,
    writes: Vec<Write>,
    /// Where in `writes` a node's row is, so that a batch writes it once.
    node_writes: HashMap<NodeId, usize>,
    pub(crate) changes: ChangeSet,
}

impl Draft {
    /// Carries out a command; if it is refused, the draft is as before.
    pub fn apply(&mut self, command: &Command, context: &Context) -> Result<Outcome, Refusal> {
        // Every command decides before it changes anything. Putting a copy back instead would make each command copy
        // what it touches of the tables, for they are changed in place only while nobody else holds them.
        let before = cfg!(debug_assertions).then(|| self.trace());
        let outcome = self.carry_out(command, context);
        if let (Err(refusal), Some(before)) = (&outcome, before) {
            debug_assert!(before == self.trace(), "refused half-way: {refusal}");
        }
        outcome
    }

    /// What every change leaves a trace in.
    fn trace(&self) -> (usize, ChangeSet, Counters, SessionId) {
        let Self { state, writes, changes, .. } = self;
        (writes.len(), changes.clone(), state.counters, state.last_session)
    }

    fn carry_out(&mut self, command: &Command, context: &Context) -> Result<Outcome, Refusal> {
        match command {
            Command::Register(registration) => self.register(registration, context),
            Command::ApproveLogin { auth_id, user } => self.approve_login(auth_id, *user, context),
            Command::RejectLogin { auth_id } => self.reject_login(auth_id),
            Command::SetNodeExpiry { node, expires_at } => {
                self.set_node_expiry(*node, *expires_at, context)
            }
            Command::RenameNode { node, name } => self.rename_node(*node, name, context),
            Command::TagNode { node, tags } => self.tag_node(*node, tags, context),
            Command::ApproveRoutes { node, routes } => self.approve_routes(*node, routes, context),
            Command::DeleteNode { node } => self.delete_node(*node, context),
            Command::SetPolicy(policy) => self.set_policy(policy, context),
            Command::CreateUser(user) => self.create_user(user, context),
            Command::RenameUser { user, name } => self.rename_user(*user, name),
            Command::DeleteUser { user } => self.delete_user(*user, context),
            Command::CreatePreauthKey(key) => self.create_preauth_key(key, context),
            Command::RevokePreauthKey { key } => self.revoke_preauth_key(*key, context),
            Command::DeletePreauthKey { key } => self.delete_preauth_key(*key, context),
            Command::CreateApiKey { secret, expires_at } => {
                Ok(self.create_api_key(secret, *expires_at, context))
            }
            Command::ExpireApiKey { key } => self.expire_api_key(*key, context),
            Command::DeleteApiKey { key } => self.delete_api_key(*key),
            Command::Connect { node, node_key, disco_key } => {
                self.connect(*node, node_key, *disco_key, context)
            }
            Command::Disconnect { node, session } => Ok(self.disconnect(*node, *session, context)),
            Command::UpdateNode(update) => Ok(self.update_node(update, context)),
            Command::TouchApiKey { key } => Ok(self.touch_api_key(*key, context)),
            Command::Sweep => Ok(self.sweep(context)),
        }
    }

    /// What has to be on disk before the draft may be published; `None` if nothing has.
    pub fn batch(&self, now: Timestamp) -> Option<Batch> {
        if self.writes.is_empty() {
            return None;
        }
        Some(Batch {
            tailnet: self.state.id,
            revision: self.state.revision + 1,
            counters: self.state.counters,
            writes: self.writes.clone(),
            change: serde_json::to_string(&self.changes).expect("invariant: ids serialize"),
            at: now,
        })
    }

    /// Whether there is anything to publish: a refusal, or an update that says what is known, leaves nothing.
    pub fn has_news(&self) -> bool {
        !self.writes.is_empty() || self.changes != ChangeSet::default()
    }

    /// Turns the draft, once its batch is on disk, into the next state and what is different in it. Without news it is
    /// of the same epoch.
    pub fn finish(self) -> (State, ChangeSet) {
        let has_news = self.has_news();
        let mut state = self.state;
        state.epoch += u64::from(has_news);
        state.revision += u64::from(!self.writes.is_empty());
        (state, self.changes)
    }

    /// Puts a node in, and on disk unless only its session is different. Does nothing if it is the same.
    pub(crate) fn put_node(&mut self, node: Node, context: &Context) -> Arc<Node> {
        let old = self.state.tailnet.node(node.id).cloned();
        if let Some(old) = old.as_ref().filter(|old| ***old == node) {
            return old.clone();
        }
        let node = Arc::new(node);
        let state = &mut self.state;
        if let Some(old) = &old {
            state.deadlines.withdraw_node(old, &state.settings);
            if old.given_name != node.given_name {
                state.labels.release(&old.given_name);
            }
        }
        state.deadlines.add_node(&node, &state.settings, context.now);
        state.tailnet.put_node(node.clone());
        let difference = old.as_ref().map_or(Difference::Stored, |old| difference(old, &node));
        if difference == Difference::TakenOver {
            self.changes.taken_over.insert(node.id.0);
        } else {
            self.changes.nodes.insert(node.id.0);
            self.tell_policy(old.as_deref(), &node);
        }
        if difference == Difference::Stored {
            self.write_node(node.clone());
        }
        node
    }

    /// Tells the policy of a node once peers are told of it, and when what policy asks about is different.
    fn tell_policy(&mut self, old: Option<&Node>, new: &Node) {
        if !new.is_announced() || old.is_some_and(|old| is_policy_alike(old, new)) {
            return;
        }
        self.apply_to_policy(|policy, delta| policy.put_node(new.into(), delta));
    }

    /// Carries out an event of the policy. A router that carries other routes than before is a node that has
    /// changed, for itself and for whoever uses it.
    fn apply_to_policy(&mut self, event: impl FnOnce(&mut CompiledPolicy, &mut PolicyDelta)) {
        let changes = &mut self.changes;
        event(&mut self.state.policy, &mut changes.policy);
        changes.nodes |= &changes.policy.routers;
    }

    /// Notes what another policy says otherwise. Nodes with other attributes have changed, for themselves.
    pub(crate) fn note_policy(&mut self, delta: &PolicyDelta) {
        self.changes.nodes |= &delta.routers | &delta.attributes;
        self.changes.policy.merge(delta);
    }

    fn write_node(&mut self, node: Arc<Node>) {
        let id = node.id;
        if let Some(at) = self.node_writes.get(&id) {
            self.writes[*at] = Write::PutNode(node);
        } else {
            self.node_writes.insert(id, self.writes.len());
            self.writes.push(Write::PutNode(node));
        }
    }

    /// Takes a node out and remembers that it was there.
    pub(crate) fn remove_node(&mut self, node: &Node, context: &Context) {
        let state = &mut self.state;
        state.deadlines.withdraw_node(node, &state.settings);
        state.tailnet.remove_node(node.id);
        state.labels.release(&node.given_name);
        self.changes.nodes.insert(node.id.0);
        self.apply_to_policy(|policy, delta| policy.remove_node(node.id, delta));
        self.node_writes.remove(&node.id);
        self.writes.push(Write::DeleteNode(node.id));
        let key = node.preauth_key.and_then(|key| self.state.tailnet.preauth_key(key)).cloned();
        if let Some(key) = key.filter(|key| key.used_by == Some(node.id)) {
            self.put_preauth_key(PreauthKey { used_by: None, ..PreauthKey::clone(&key) });
        }
        let tombstone = Tombstone {
            machine_key: node.machine_key,
            node_key: node.node_key,
            home_derp: node.home_derp,
            deleted_at: context.now,
        };
        self.state.deadlines.add_tombstone(&tombstone);
        self.state.tailnet.put_tombstone(tombstone);
        self.writes.push(Write::PutTombstone(tombstone));
    }

    pub(crate) fn put_user(&mut self, user: User) -> Arc<User> {
        let user = Arc::new(user);
        self.state.tailnet.put_user(user.clone());
        self.apply_to_policy(|policy, delta| policy.put_user(UserFacts::from(&*user), delta));
        self.changes.users.insert(user.id);
        self.writes.push(Write::PutUser(user.clone()));
        user
    }

    pub(crate) fn remove_user(&mut self, user: UserId) {
        self.state.tailnet.remove_user(user);
        self.apply_to_policy(|policy, delta| policy.remove_user(user, delta));
        self.changes.users.insert(user);
        self.writes.push(Write::DeleteUser(user));
    }

    pub(crate) fn put_policy_version(&mut self, version: PolicyVersion) -> Arc<PolicyVersion> {
        let version = Arc::new(version);
        self.state.tailnet.put_policy_version(version.clone());
        self.changes.policy_version = Some(version.id);
        self.writes.push(Write::PutPolicy(version.clone()));
        version
    }

    pub(crate) fn remove_policy_version(&mut self, id: PolicyVersionId) {
        self.state.tailnet.remove_policy_version(id);
        self.writes.push(Write::DeletePolicy(id));
    }

    pub(crate) fn put_preauth_key(&mut self, key: PreauthKey) -> Arc<PreauthKey> {
        let key = self.keep_preauth_key(key);
        self.writes.push(Write::PutPreauthKey(key.clone()));
        key
    }

    /// Marks a single-use key as used by a node, guarded by the database.
    pub(crate) fn burn_preauth_key(&mut self, key: &PreauthKey, node: NodeId, at: Timestamp) {
        self.keep_preauth_key(PreauthKey { used_at: Some(at), used_by: Some(node), ..key.clone() });
        self.writes.push(Write::BurnPreauthKey { key: key.id, node, at });
    }

    fn keep_preauth_key(&mut self, key: PreauthKey) -> Arc<PreauthKey> {
        let key = Arc::new(key);
        self.state.deadlines.add_preauth_key(&key, &self.state.settings);
        self.state.tailnet.put_preauth_key(key.clone());
        key
    }

    pub(crate) fn remove_preauth_key(&mut self, key: PreauthKeyId) {
        self.state.tailnet.remove_preauth_key(key);
        self.writes.push(Write::DeletePreauthKey(key));
    }

    pub(crate) fn put_api_key(&mut self, key: ApiKey) -> Arc<ApiKey> {
        let key = Arc::new(key);
        self.state.tailnet.put_api_key(key.clone());
        self.writes.push(Write::PutApiKey(key.clone()));
        key
    }

    pub(crate) fn remove_api_key(&mut self, key: ApiKeyId) {
        self.state.tailnet.remove_api_key(key);
        self.writes.push(Write::DeleteApiKey(key));
    }

    pub(crate) fn remove_tombstone(
        &mut self,
        machine: mesh_keys::MachinePublic,
        key: mesh_keys::NodePublic,
    ) {
        if self.state.tailnet.remove_tombstone(machine, key) {
            self.writes.push(Write::DeleteTombstone(machine, key));
        }
    }

    /// The next id of a kind.
    pub(crate) fn next_id<T: Copy + std::ops::AddAssign + From<u8>>(counter: &mut T) -> T {
        let id = *counter;
        *counter += T::from(1);
        id
    }
}

/// Whether two versions of a node are the same to policy, as most changes leave them.
fn is_policy_alike(old: &Node, new: &Node) -> bool {
    old.is_announced() == new.is_announced()
        && old.session.is_some() == new.session.is_some()
        && old.owner == new.owner
        && (old.ipv4, old.ipv6) == (new.ipv4, new.ipv6)
        && old.approved_routes == new.approved_routes
        && old.hostinfo == new.hostinfo
}

/// In what a node differs from its version before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Difference {
    /// Another stream holds it.
    TakenOver,
    /// It came or went, which lives in memory.
    Online,
    /// Something that is stored.
    Stored,
}

fn difference(old: &Node, new: &Node) -> Difference {
    let session = old.session;
    if (Node { session, ..new.clone() }) != *old {
        Difference::Stored
    } else if session.is_some() == new.session.is_some() {
        Difference::TakenOver
    } else {
        Difference::Online
    }
}
