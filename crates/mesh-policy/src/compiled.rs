//! A policy compiled against a tailnet, kept up event by event.

use std::net::IpAddr;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use foldhash::HashMap;
use ipnet::IpNet;
use mesh_model::{NodeId, UserId};
use roaring::RoaringBitmap;
use rpds::{RedBlackTreeMapSync, StackSync};

use crate::chunked::Chunked;
use crate::delta::PolicyDelta;
use crate::edit::{Difference, Edit, difference};
use crate::facts::{NodeFacts, UserFacts};
use crate::filter::Candidate;
use crate::members::{Members, bitmap_bytes};
use crate::policy::{Policy, SelectorId};
use crate::policy_tests::TestReport;
use crate::program::{Atom, Atoms, Identities, Kind, Program, has_same_rules};
use crate::routes::Route;
use crate::sources::SourceText;
use crate::ssh::SshCache;

mod classes;
mod events;
mod naming;

pub(crate) use classes::Slots;

/// A set of nodes that policy cannot tell apart. Never given twice, also not over policy changes: the same id is the
/// same class in every snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub u32);

/// Of a class in the making.
const NO_ID: ClassId = ClassId(u32::MAX);

/// All by which policy tells nodes apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Signature {
    /// What selects the node itself: by who it belongs to, or by its addresses.
    pub(crate) members: Atoms,
    /// What packet filters and visibility take it for: `members`, and what its routes are hit by.
    pub(crate) hits: Atoms,
    /// Its active routes.
    pub(crate) routes: Arc<[IpNet]>,
    /// Other nodes whose addresses lie inside its subnet routes.
    pub(crate) covered: Arc<[NodeId]>,
    /// Its user, if the policy has rules about users' own nodes.
    pub(crate) user: Option<UserId>,
}

/// What is known of a class beside its members and peers.
#[derive(Debug)]
pub(crate) struct Class {
    pub(crate) id: ClassId,
    pub(crate) signature: Arc<Signature>,
    /// Whether it sees all classes and all see it.
    pub(crate) sees_everybody: bool,
    /// Whether its nodes reach their user's own.
    reaches_self: bool,
    /// Which rules hit its nodes; worked out when first asked for.
    pub(crate) candidates: OnceLock<Vec<Candidate>>,
    /// Whether IPv4 is hidden from its nodes and of them; worked out when first asked for.
    pub(crate) hides_ipv4: OnceLock<bool>,
}

#[derive(Debug, Clone)]
struct PlacedNode {
    facts: Arc<NodeFacts>,
    /// Where its class is; [`UNPLACED`] only while it is being put in.
    slot: u32,
}

const UNPLACED: u32 = u32::MAX;

#[derive(Debug)]
struct PlacedUser {
    facts: UserFacts,
    /// Selectors of its untagged nodes, sorted.
    atoms: Vec<Atom>,
}

/// A hash map that shares what did not change with its clones.
type PersistentMap<K, V> = rpds::HashTrieMapSync<K, V, foldhash::fast::RandomState>;

fn persistent_map<K: Eq + std::hash::Hash, V>() -> PersistentMap<K, V> {
    PersistentMap::new_with_hasher_and_ptr_kind(foldhash::fast::RandomState::default())
}

/// Where merged rules stand: the first item of the same sources and protocol.
pub(crate) type Firsts = HashMap<(SourceText, Option<u8>), u32>;

/// What was worked out of one state as a whole. Clones share it until something happens to one of them.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    /// The policy it was last compiled to, and what is different under that.
    edit: Mutex<Option<(Box<CompiledPolicy>, PolicyDelta)>>,
    /// What the tests of its policy say.
    pub(crate) tests: OnceLock<TestReport>,
}

/// A policy compiled against users and nodes. A clone shares what it holds, and costs little more than a pointer.
///
/// Laws, which tests hold it to: after any events it answers as one compiled anew would (but for primaries, which
/// stay where they are while they can); whatever answers otherwise than before was named in a [`PolicyDelta`];
/// visibility is symmetric.
#[derive(Debug, Clone)]
pub struct CompiledPolicy {
    policy: Arc<Policy>,
    pub(crate) program: Arc<Program>,
    identities: Arc<Identities>,
    users: RedBlackTreeMapSync<UserId, Arc<PlacedUser>>,
    /// Users by the ids that identity providers know them by.
    provider_ids: PersistentMap<Arc<str>, UserId>,
    nodes: Chunked<Option<PlacedNode>>,
    node_ids: Arc<RoaringBitmap>,
    /// Untagged nodes by user.
    owned: PersistentMap<UserId, Arc<RoaringBitmap>>,
    signatures: PersistentMap<Arc<Signature>, u32>,
    classes: Chunked<Option<Arc<Class>>>,
    /// Nodes by class.
    members: Chunked<Arc<Members>>,
    /// Slots of the classes that a class sees, itself included if so; without those that see everybody.
    rows: Chunked<Arc<RoaringBitmap>>,
    /// Classes by what hits them.
    hit: Chunked<Arc<RoaringBitmap>>,
    /// Classes by user, as far as signatures tell users apart.
    user_classes: PersistentMap<UserId, Arc<RoaringBitmap>>,
    /// Classes that see everybody.
    everybody: Arc<RoaringBitmap>,
    /// Rows are worked out when all nodes are in.
    is_in_bulk: bool,
    free_slots: StackSync<u32>,
    slot_count: u32,
    /// The next class, also of clones and of other policies.
    class_ids: Arc<AtomicU32>,
    /// When the addresses of an atom last changed.
    stamps: Chunked<u64>,
    /// When the set of active subnet routes last changed.
    pub(crate) routes_stamp: u64,
    pub(crate) routes: RedBlackTreeMapSync<IpNet, Arc<Route>>,
    /// The lowest and highest address of either family that any node has had.
    pub(crate) address_bounds: AddressBounds,
    /// Active routes that may hold addresses of nodes.
    pub(crate) covering_routes: Arc<Vec<IpNet>>,
    pub(crate) firsts: Arc<OnceLock<Firsts>>,
    pub(crate) memo: Arc<Memo>,
    pub(crate) ssh: SshCache,
}

/// Whom the nodes of a class see.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    compiled: &'a CompiledPolicy,
    /// Classes that it sees.
    row: Option<&'a RoaringBitmap>,
    sees_everybody: bool,
}

/// What [`CompiledPolicy::relation_size`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationSize {
    /// Classes of nodes.
    pub classes: usize,
    /// Bytes on the heap, about.
    pub bytes: usize,
}

/// Bounds of the addresses of each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct AddressBounds {
    v4: Option<(IpAddr, IpAddr)>,
    v6: Option<(IpAddr, IpAddr)>,
}

impl AddressBounds {
    /// Widens the bounds by the whole block that an address is in, so that they seldom change.
    fn include(&mut self, address: IpAddr) {
        let (bounds, length) =
            if address.is_ipv4() { (&mut self.v4, 8) } else { (&mut self.v6, 48) };
        let block = IpNet::new(address, length).expect("invariant: a literal length");
        let (first, last) = (block.network(), block.broadcast());
        *bounds =
            Some(bounds.map_or((first, last), |known| (known.0.min(first), known.1.max(last))));
    }

    pub(crate) fn may_overlap(&self, prefix: &IpNet) -> bool {
        let bounds = if prefix.addr().is_ipv4() { self.v4 } else { self.v6 };
        bounds.is_some_and(|(first, last)| prefix.network() <= last && first <= prefix.broadcast())
    }
}

impl CompiledPolicy {
    /// Compiles a policy against users and nodes.
    pub fn compile(
        policy: Arc<Policy>,
        users: impl IntoIterator<Item = UserFacts>,
        nodes: impl IntoIterator<Item = NodeFacts>,
    ) -> Self {
        let mut compiled = Self::empty(policy, Arc::default());
        let mut delta = PolicyDelta::default();
        for user in users {
            compiled.put_user(user, &mut delta);
        }
        for node in nodes {
            compiled.put_node(node, &mut delta);
        }
        compiled.end_bulk();
        compiled.give_ids(&[]);
        compiled
    }

    /// Another policy for the same users and nodes. Primaries stay where they are.
    #[must_use]
    pub fn recompiled(&self, policy: Arc<Policy>) -> Self {
        self.edited(policy).0
    }

    /// Another policy for the same users and nodes, and what may be different under it. If only members of groups are
    /// others, the work is that of moving their nodes. Asked again for the same policy before anything happens, it is no
    /// work: who checks a policy first has it compiled once.
    pub fn edited(&self, policy: Arc<Policy>) -> (Self, PolicyDelta) {
        let mut known = self.memo.edit.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((edited, delta)) = &*known
            && Arc::ptr_eq(&edited.policy, &policy)
        {
            return (Self::clone(edited), delta.clone());
        }
        let (edited, delta) = self.edit(policy);
        *known = Some((Box::new(edited.clone()), delta.clone()));
        (edited, delta)
    }

    fn edit(&self, policy: Arc<Policy>) -> (Self, PolicyDelta) {
        let mut delta = PolicyDelta::default();
        if has_same_rules(&self.policy, &policy) {
            let mut edited = self.clone();
            edited.forget();
            edited.identities = Arc::new(Identities::new(&policy));
            edited.policy = policy;
            edited.settle_users(self.users.keys().copied().collect(), &mut delta);
            delta.named.clear();
            return (edited, delta);
        }
        let mut compiled = Self::empty(policy, self.class_ids.clone());
        let edit = Edit::new(self, &compiled);
        if let Some(edges) = edit.edges_alone() {
            // All atoms are what they were, and have the same addresses.
            compiled.program.cache.take_over(&self.program.cache, edit.same_sources());
            compiled.take_over(self, &edges);
            let Difference { mut delta, kept } = difference(self, &compiled, edit);
            compiled.give_ids(&kept);
            compiled.settle_users(self.users.keys().copied().collect(), &mut delta);
            delta.named.clear();
            return (compiled, delta);
        }
        for user in self.users.values() {
            compiled.put_user(user.facts.clone(), &mut delta);
        }
        compiled.address_bounds = self.address_bounds;
        for node in self.nodes() {
            compiled.put_node(node.clone(), &mut delta);
        }
        compiled.keep_primaries(&self.routes);
        compiled.end_bulk();
        let Difference { delta, kept } = difference(self, &compiled, edit);
        compiled.give_ids(&kept);
        (compiled, delta)
    }

    /// Takes over the nodes of an earlier policy, of which no atom was another; only what hangs on edges between these is
    /// worked out again.
    fn take_over(&mut self, earlier: &Self, edges: &RoaringBitmap) {
        let Self { policy, program, identities, ssh, firsts, memo, .. } = self.clone();
        program.continue_stamps(&earlier.program);
        *self = Self { policy, program, identities, firsts, memo, ssh, ..earlier.clone() };
        for slot in 0..self.slot_count {
            let Some(class) = self.classes.get(slot).cloned().flatten() else { continue };
            let is_linked = class.signature.hits.iter().any(|atom| edges.contains(*atom));
            if is_linked && !class.sees_everybody {
                let row = self.row_of(slot, &class.signature, class.reaches_self);
                *self.rows.get_mut(slot) = Arc::new(row);
            }
            *self.classes.get_mut(slot) = Some(Arc::new(Class {
                signature: class.signature.clone(),
                candidates: OnceLock::new(),
                hides_ipv4: OnceLock::new(),
                ..*class
            }));
        }
    }

    fn end_bulk(&mut self) {
        self.is_in_bulk = false;
        for slot in 0..self.slot_count {
            if let Some(class) = self.class_at(slot).filter(|class| !class.sees_everybody) {
                let row = self.row_of(slot, &class.signature, class.reaches_self);
                *self.rows.get_mut(slot) = Arc::new(row);
            }
        }
    }

    fn empty(policy: Arc<Policy>, class_ids: Arc<AtomicU32>) -> Self {
        let program = Program::new(&policy);
        Self {
            identities: Arc::new(Identities::new(&policy)),
            ssh: SshCache::of_len(policy.ssh.len()),
            policy,
            hit: Chunked::of_len(program.atom_count()),
            stamps: Chunked::of_len(program.atom_count()),
            program: Arc::new(program),
            users: RedBlackTreeMapSync::default(),
            provider_ids: persistent_map(),
            nodes: Chunked::default(),
            node_ids: Arc::default(),
            owned: persistent_map(),
            signatures: persistent_map(),
            classes: Chunked::default(),
            members: Chunked::default(),
            rows: Chunked::default(),
            user_classes: persistent_map(),
            everybody: Arc::default(),
            is_in_bulk: true,
            free_slots: StackSync::default(),
            slot_count: 0,
            class_ids,
            routes_stamp: 0,
            routes: RedBlackTreeMapSync::default(),
            address_bounds: AddressBounds::default(),
            covering_routes: Arc::default(),
            firsts: Arc::default(),
            memo: Arc::default(),
        }
    }

    /// The policy.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// A user.
    pub fn user(&self, id: UserId) -> Option<&UserFacts> {
        self.users.get(&id).map(|user| &user.facts)
    }

    /// All users, by id.
    pub fn users(&self) -> impl Iterator<Item = &UserFacts> {
        self.users.values().map(|user| &user.facts)
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> Option<&NodeFacts> {
        self.placed(id).map(|node| &*node.facts)
    }

    /// All nodes, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeFacts> {
        self.nodes.iter().filter_map(|(_, node)| node.as_ref()).map(|node| &*node.facts)
    }

    /// Ids of all nodes.
    pub fn node_ids(&self) -> &RoaringBitmap {
        &self.node_ids
    }

    /// Untagged nodes of a user.
    pub fn nodes_of_user(&self, user: UserId) -> Option<&RoaringBitmap> {
        self.owned.get(&user).map(|nodes| &**nodes)
    }

    fn placed(&self, id: NodeId) -> Option<&PlacedNode> {
        self.nodes.get(id.0)?.as_ref()
    }

    /// The class of a node; `None` without such a node.
    pub fn class_of(&self, node: NodeId) -> Option<ClassId> {
        Some(self.class(node)?.id)
    }

    pub(crate) fn class(&self, node: NodeId) -> Option<&Class> {
        self.class_at(self.placed(node)?.slot)
    }

    fn class_at(&self, slot: u32) -> Option<&Class> {
        self.classes.get(slot)?.as_deref()
    }

    /// Where the class of a node is.
    pub(crate) fn slot_of(&self, node: NodeId) -> Option<u32> {
        self.placed(node).map(|node| node.slot)
    }

    /// All slots of classes are below.
    pub(crate) fn slot_count(&self) -> u32 {
        self.slot_count
    }

    pub(crate) fn id_at(&self, slot: u32) -> Option<ClassId> {
        self.class_at(slot).map(|class| class.id)
    }

    pub(crate) fn signature_at(&self, slot: u32) -> Option<&Signature> {
        self.class_at(slot).map(|class| &*class.signature)
    }

    /// Slots of the classes that see everybody.
    pub(crate) fn everybody(&self) -> &RoaringBitmap {
        &self.everybody
    }

    /// Adds the nodes of a class.
    pub(crate) fn add_members(&self, slot: u32, nodes: &mut RoaringBitmap) {
        if let Some(members) = self.members.get(slot) {
            members.add_to(nodes);
        }
    }

    /// Whether a selector selects a node: by who it belongs to, or by its addresses.
    pub fn selects(&self, selector: SelectorId, node: NodeId) -> bool {
        self.class(node).is_some_and(|class| self.does_select(selector, class))
    }

    fn does_select(&self, selector: SelectorId, class: &Class) -> bool {
        match self.program.kind(selector.0) {
            Kind::Everybody => true,
            Kind::SelfNodes => false,
            Kind::Identity | Kind::Literal(_) | Kind::Internet => {
                class.signature.members.binary_search(&selector.0).is_ok()
            }
        }
    }

    /// The nodes that a selector selects: the resolve cache.
    pub fn nodes_selected(&self, selector: SelectorId) -> RoaringBitmap {
        match self.program.kind(selector.0) {
            Kind::Everybody => RoaringBitmap::clone(&self.node_ids),
            Kind::SelfNodes => RoaringBitmap::new(),
            Kind::Identity | Kind::Literal(_) | Kind::Internet => self.nodes_in(selector.0),
        }
    }

    /// The nodes that have an atom among their members.
    pub(crate) fn nodes_in(&self, atom: Atom) -> RoaringBitmap {
        self.nodes_of_classes(self.classes_in(atom))
    }

    pub(crate) fn has_nodes(&self, atom: Atom) -> bool {
        self.classes_in(atom).next().is_some()
    }

    fn classes_in(&self, atom: Atom) -> impl Iterator<Item = u32> {
        let slots = self.hit.get(atom).map(|slots| &**slots);
        let is_member = move |slot: &u32| {
            self.class_at(*slot)
                .is_some_and(|class| class.signature.members.binary_search(&atom).is_ok())
        };
        slots.into_iter().flatten().filter(is_member)
    }

    fn nodes_of_classes(&self, slots: impl Iterator<Item = u32>) -> RoaringBitmap {
        let mut nodes = RoaringBitmap::new();
        for members in slots.filter_map(|slot| self.members.get(slot)) {
            members.add_to(&mut nodes);
        }
        nodes
    }

    /// How large the relation of who sees whom is: nodes by class, classes by class, and the class of each node.
    pub fn relation_size(&self) -> RelationSize {
        let slots = 0..self.slot_count;
        let per_slot = |slot: u32| {
            let members = self.members.get(slot).map_or(0, |members| members.bytes());
            let row = self.rows.get(slot).map_or(0, |row| bitmap_bytes(row));
            members
                + row
                + size_of::<Members>()
                + size_of::<RoaringBitmap>()
                + 4 * size_of::<usize>()
        };
        let hit = self.hit.iter().map(|(_, slots)| bitmap_bytes(slots));
        let slot_of_node =
            (self.node_ids.max().unwrap_or_default() as usize + 1) * size_of::<u32>();
        RelationSize {
            classes: slots.clone().filter(|slot| self.class_at(*slot).is_some()).count(),
            bytes: slots.map(per_slot).chain(hit).sum::<usize>() + slot_of_node,
        }
    }

    /// Whether two nodes are peers.
    pub fn sees(&self, viewer: NodeId, peer: NodeId) -> bool {
        viewer != peer && self.sight(viewer).is_some_and(|sight| sight.sees(peer))
    }

    /// Whom a viewer's class sees; `None` without such a node.
    pub fn sight(&self, viewer: NodeId) -> Option<Sight<'_>> {
        let slot = self.placed(viewer)?.slot;
        let sees_everybody = self.everybody.contains(slot);
        let row = (!sees_everybody).then(|| self.rows.get(slot)).flatten();
        Some(Sight { compiled: self, row: row.map(|row| &**row), sees_everybody })
    }

    /// The peers of a node.
    pub fn peers(&self, viewer: NodeId) -> RoaringBitmap {
        let mut peers = self.peers_of_class(viewer);
        peers.remove(viewer.0);
        peers
    }

    /// What one more node of a viewer's class would have for peers: [`Sight::sees`] of each.
    pub fn peers_of_class(&self, viewer: NodeId) -> RoaringBitmap {
        let Some(slot) = self.placed(viewer).map(|node| node.slot) else {
            return RoaringBitmap::new();
        };
        if self.everybody.contains(slot) {
            RoaringBitmap::clone(&self.node_ids)
        } else {
            self.nodes_of_classes(self.seen_classes(slot))
        }
    }

    /// Calls for each peer of a node, class by class.
    pub fn for_each_peer(&self, viewer: NodeId, mut see: impl FnMut(NodeId)) {
        let Some(slot) = self.placed(viewer).map(|node| node.slot) else { return };
        let mut see_other = |id: u32| {
            if id != viewer.0 {
                see(NodeId(id));
            }
        };
        if self.everybody.contains(slot) {
            return self.node_ids.iter().for_each(see_other);
        }
        let row = self.rows.get(slot).into_iter().map(|row| &**row);
        for classes in row.chain([&*self.everybody]) {
            classes.iter().filter_map(|slot| self.members.get(slot)).for_each(|members| {
                members.for_each(&mut see_other);
            });
        }
    }

    /// Classes that one sees which does not see everybody.
    pub(crate) fn seen_classes(&self, slot: u32) -> impl Iterator<Item = u32> {
        let row = self.rows.get(slot).map(|row| &**row);
        row.into_iter().flatten().chain(&*self.everybody)
    }
}

impl Sight<'_> {
    /// Whether one more node of the class would see a node: its peers, and itself if nodes of the class see each other.
    pub fn sees(&self, node: NodeId) -> bool {
        let slot = self.compiled.placed(node).map(|node| node.slot);
        slot.is_some_and(|slot| {
            self.sees_everybody
                || self.row.is_some_and(|row| row.contains(slot))
                || self.compiled.everybody.contains(slot)
        })
    }
}

fn insert_into(sets: &mut PersistentMap<UserId, Arc<RoaringBitmap>>, user: UserId, item: u32) {
    match sets.get_mut(&user) {
        Some(set) => {
            Arc::make_mut(set).insert(item);
        }
        None => sets.insert_mut(user, Arc::new([item].into_iter().collect())),
    }
}

fn remove_from(sets: &mut PersistentMap<UserId, Arc<RoaringBitmap>>, user: UserId, item: u32) {
    let Some(set) = sets.get_mut(&user) else { return };
    Arc::make_mut(set).remove(item);
    if set.is_empty() {
        sets.remove_mut(&user);
    }
}
