//! A policy compiled against a tailnet, kept up event by event.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use ipnet::IpNet;
use mesh_model::{NodeId, UserId};
use roaring::RoaringBitmap;
use rpds::{HashTrieMapSync, RedBlackTreeMapSync, StackSync};

use crate::chunked::Chunked;
use crate::delta::PolicyDelta;
use crate::facts::{NodeFacts, NodeOwner, Role, UserFacts};
use crate::filter::Candidates;
use crate::members::{Members, bitmap_bytes};
use crate::policy::{Policy, SelectorId};
use crate::posture;
use crate::program::{Atom, Atoms, Identities, Kind, Postured, Program, do_share, has_same_rules};
use crate::routes::Route;
use crate::sources::{SourceKeyId, SourceText};
use crate::ssh::SshCache;

/// A set of nodes that policy cannot tell apart. Never given twice, also not over policy changes: the same id is the
/// same class in every snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub u32);

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
    pub(crate) candidates: OnceLock<Candidates>,
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

/// Where merged rules stand: the first item of the same sources and protocol.
pub(crate) type Firsts = HashMap<(SourceText, Option<u8>), u32>;

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
    provider_ids: HashTrieMapSync<Arc<str>, UserId>,
    nodes: Chunked<Option<PlacedNode>>,
    node_ids: Arc<RoaringBitmap>,
    /// Untagged nodes by user.
    owned: HashTrieMapSync<UserId, Arc<RoaringBitmap>>,
    signatures: HashTrieMapSync<Arc<Signature>, u32>,
    classes: Chunked<Option<Arc<Class>>>,
    /// Nodes by class.
    members: Chunked<Arc<Members>>,
    /// Slots of the classes that a class sees, itself included if so; without those that see everybody.
    rows: Chunked<Arc<RoaringBitmap>>,
    /// Classes by what hits them.
    hit: Chunked<Arc<RoaringBitmap>>,
    /// Classes by user, as far as signatures tell users apart.
    user_classes: HashTrieMapSync<UserId, Arc<RoaringBitmap>>,
    /// Classes that see everybody.
    everybody: Arc<RoaringBitmap>,
    /// Rows are worked out when all nodes are in.
    is_in_bulk: bool,
    free_slots: StackSync<u32>,
    slot_count: u32,
    next_class: u32,
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
    pub(crate) ssh: SshCache,
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
        let mut compiled = Self::empty(policy, 0);
        let mut delta = PolicyDelta::default();
        for user in users {
            compiled.put_user(user, &mut delta);
        }
        for node in nodes {
            compiled.put_node(node, &mut delta);
        }
        compiled.end_bulk();
        compiled
    }

    /// Another policy for the same users and nodes. Primaries stay where they are.
    #[must_use]
    pub fn recompiled(&self, policy: Arc<Policy>) -> Self {
        self.edited(policy).0
    }

    /// Another policy for the same users and nodes, and what may be different under it. If only members of groups are
    /// others, the work is that of moving their nodes.
    pub fn edited(&self, policy: Arc<Policy>) -> (Self, PolicyDelta) {
        let mut delta = PolicyDelta::default();
        if has_same_rules(&self.policy, &policy) {
            let mut edited = self.clone();
            edited.identities = Arc::new(Identities::new(&policy));
            edited.policy = policy;
            edited.settle_users(self.users.keys().copied().collect(), &mut delta);
            return (edited, delta);
        }
        let mut compiled = Self::empty(policy, self.next_class);
        for user in self.users.values() {
            compiled.put_user(user.facts.clone(), &mut delta);
        }
        compiled.address_bounds = self.address_bounds;
        for node in self.nodes() {
            compiled.put_node(node.clone(), &mut delta);
        }
        compiled.keep_primaries(&self.routes);
        compiled.end_bulk();
        let delta = self.difference(&compiled);
        (compiled, delta)
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

    fn empty(policy: Arc<Policy>, next_class: u32) -> Self {
        let program = Program::new(&policy);
        Self {
            identities: Arc::new(Identities::new(&policy)),
            ssh: SshCache::of_len(policy.ssh.len()),
            policy,
            hit: Chunked::of_len(program.atom_count()),
            stamps: Chunked::of_len(program.atom_count()),
            program: Arc::new(program),
            users: RedBlackTreeMapSync::default(),
            provider_ids: HashTrieMapSync::default(),
            nodes: Chunked::default(),
            node_ids: Arc::default(),
            owned: HashTrieMapSync::default(),
            signatures: HashTrieMapSync::default(),
            classes: Chunked::default(),
            members: Chunked::default(),
            rows: Chunked::default(),
            user_classes: HashTrieMapSync::default(),
            everybody: Arc::default(),
            is_in_bulk: true,
            free_slots: StackSync::default(),
            slot_count: 0,
            next_class,
            routes_stamp: 0,
            routes: RedBlackTreeMapSync::default(),
            address_bounds: AddressBounds::default(),
            covering_routes: Arc::default(),
            firsts: Arc::default(),
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
        let slots = self.placed(viewer).zip(self.placed(peer));
        viewer != peer && slots.is_some_and(|(viewer, peer)| self.do_see(viewer.slot, peer.slot))
    }

    fn do_see(&self, one: u32, other: u32) -> bool {
        self.everybody.contains(one)
            || self.everybody.contains(other)
            || self.rows.get(one).is_some_and(|row| row.contains(other))
    }

    /// The peers of a node.
    pub fn peers(&self, viewer: NodeId) -> RoaringBitmap {
        let Some(slot) = self.placed(viewer).map(|node| node.slot) else {
            return RoaringBitmap::new();
        };
        let mut peers = if self.everybody.contains(slot) {
            RoaringBitmap::clone(&self.node_ids)
        } else {
            self.nodes_of_classes(self.seen_classes(slot))
        };
        peers.remove(viewer.0);
        peers
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
    fn seen_classes(&self, slot: u32) -> impl Iterator<Item = u32> {
        let row = self.rows.get(slot).map(|row| &**row);
        row.into_iter().flatten().chain(&*self.everybody)
    }

    /// Takes in a node that is new or has changed.
    pub fn put_node(&mut self, facts: NodeFacts, delta: &mut PolicyDelta) {
        let id = facts.id;
        let old = self.nodes.get(id.0).cloned().flatten();
        let old = old.as_ref();
        if old.is_some_and(|old| *old.facts == facts) {
            return;
        }
        let is_another = old.is_none_or(|old| {
            old.facts.owner != facts.owner || !old.facts.addresses().eq(facts.addresses())
        });
        if is_another {
            self.include_addresses(&facts);
            delta.moved.insert(id.0);
            self.ssh.clear();
        }
        self.count_owner(old.map(|old| &*old.facts), &facts);
        let slot = old.map(|old| old.slot);
        let old_members =
            slot.and_then(|slot| self.class_at(slot)).map(|class| class.signature.clone());
        // The node stands in its old class until it is placed, so that routes can be worked out meanwhile.
        let kept = slot.unwrap_or(UNPLACED);
        let (old_routes, was_online) = old.map_or((Arc::from([]), false), |old| {
            (old.facts.active_routes.clone(), old.facts.online)
        });
        let (new_routes, online) = (facts.active_routes.clone(), facts.online);
        *self.nodes.get_mut(id.0) = Some(PlacedNode { facts: Arc::new(facts), slot: kept });
        if old.is_none() {
            Arc::make_mut(&mut self.node_ids).insert(id.0);
        }
        if old_routes != new_routes || was_online != online {
            self.move_routes(id, &old_routes, &new_routes, delta);
        }
        self.place(id, delta);
        self.note_sources(id, old_members.as_deref(), is_another, delta);
        if delta.moved.contains(id.0) {
            let addresses = old.into_iter().flat_map(|old| old.facts.addresses());
            let addresses: Vec<IpAddr> =
                self.node(id).into_iter().flat_map(NodeFacts::addresses).chain(addresses).collect();
            self.place_covering_routers(&addresses, delta);
        }
    }

    /// Forgets a node.
    pub fn remove_node(&mut self, id: NodeId, delta: &mut PolicyDelta) {
        let Some(old) = self.nodes.get(id.0).cloned().flatten() else { return };
        self.move_routes(id, &old.facts.active_routes, &[], delta);
        let signature = self.class_at(old.slot).map(|class| class.signature.clone());
        self.leave(id, old.slot);
        *self.nodes.get_mut(id.0) = None;
        Arc::make_mut(&mut self.node_ids).remove(id.0);
        self.ssh.clear();
        self.disown(&old.facts);
        delta.moved.insert(id.0);
        for atom in signature.iter().flat_map(|signature| signature.members.iter()) {
            self.stamp(*atom, delta);
        }
        let addresses: Vec<IpAddr> = old.facts.addresses().collect();
        self.place_covering_routers(&addresses, delta);
    }

    /// Takes in a user that is new or has changed.
    pub fn put_user(&mut self, facts: UserFacts, delta: &mut PolicyDelta) {
        let id = facts.id;
        let old = self.users.get(&id).cloned();
        if old.as_ref().is_some_and(|old| old.facts == facts) {
            return;
        }
        let provider_ids = [Some(&facts), old.as_ref().map(|old| &old.facts)];
        let settles_others = provider_ids.into_iter().flatten().any(|facts| {
            !facts.provider_id.is_empty() && self.identities.logins.contains_key(&facts.provider_id)
        });
        if let Some(old) = &old {
            self.provider_ids.remove_mut(&old.facts.provider_id);
        }
        if !facts.provider_id.is_empty() {
            self.provider_ids.insert_mut(facts.provider_id.clone(), id);
        }
        let atoms = old.map(|old| old.atoms.clone()).unwrap_or_default();
        self.users.insert_mut(id, Arc::new(PlacedUser { facts, atoms }));
        self.ssh.clear();
        delta.users = true;
        self.settle_users(self.concerned_users(id, settles_others), delta);
    }

    /// Forgets a user. Its nodes, if it has any left, are nobody's in particular.
    pub fn remove_user(&mut self, id: UserId, delta: &mut PolicyDelta) {
        let Some(old) = self.users.get(&id).cloned() else { return };
        self.users.remove_mut(&id);
        self.provider_ids.remove_mut(&old.facts.provider_id);
        self.ssh.clear();
        delta.users = true;
        let settles_others = self.identities.logins.contains_key(&old.facts.provider_id);
        self.settle_users(self.concerned_users(id, settles_others), delta);
    }

    /// Works out what selects some users.
    fn settle_users(&mut self, users: Vec<UserId>, delta: &mut PolicyDelta) {
        for id in users {
            if let Some(user) = self.users.get(&id) {
                let atoms = self.user_atoms(&user.facts);
                if user.atoms == atoms {
                    continue;
                }
                let facts = user.facts.clone();
                self.users.insert_mut(id, Arc::new(PlacedUser { facts, atoms }));
            }
            let owned = self.owned.get(&id).map(|nodes| RoaringBitmap::clone(nodes));
            for node in owned.unwrap_or_default() {
                self.replace(NodeId(node), delta);
            }
        }
    }

    /// A user, or all if a provider's id came or went, for it takes its selectors from users of the same name.
    fn concerned_users(&self, id: UserId, are_all: bool) -> Vec<UserId> {
        if are_all { self.users.keys().copied().chain([id]).collect() } else { vec![id] }
    }

    /// What selects the untagged nodes of a user, but for `autogroup:member`; sorted.
    pub(crate) fn user_atoms(&self, user: &UserFacts) -> Vec<Atom> {
        let identities = &self.identities;
        let mut atoms: Vec<Atom> = Vec::new();
        if !user.provider_id.is_empty() {
            atoms.extend(identities.logins.get(&user.provider_id).into_iter().flatten());
        }
        for login in [&user.email, &user.name] {
            if let Some(named) = identities.logins.get(login)
                && !login.is_empty()
                && !self.provider_ids.contains_key(login)
            {
                atoms.extend(named);
            }
        }
        let domain = user.login().rsplit_once('@').map(|(_, domain)| domain);
        atoms.extend(domain.and_then(|domain| identities.domains.get(domain)));
        if user.role != Role::Member {
            atoms.extend(identities.admin);
        }
        if user.role == Role::Owner {
            atoms.extend(identities.owner);
        }
        atoms.sort_unstable();
        atoms.dedup();
        atoms
    }

    fn include_addresses(&mut self, facts: &NodeFacts) {
        let mut bounds = self.address_bounds;
        facts.addresses().for_each(|address| bounds.include(address));
        if bounds != self.address_bounds {
            self.address_bounds = bounds;
            self.find_covering_routes();
        }
    }

    fn count_owner(&mut self, old: Option<&NodeFacts>, new: &NodeFacts) {
        if old.is_some_and(|old| old.user() == new.user()) {
            return;
        }
        if let Some(old) = old {
            self.disown(old);
        }
        if let Some(user) = new.user() {
            insert_into(&mut self.owned, user, new.id.0);
        }
    }

    fn disown(&mut self, node: &NodeFacts) {
        if let Some(user) = node.user() {
            remove_from(&mut self.owned, user, node.id.0);
        }
    }

    /// Places a node again after something that it is judged by has changed.
    pub(crate) fn replace(&mut self, id: NodeId, delta: &mut PolicyDelta) {
        let old = self.class(id).map(|class| class.signature.clone());
        if self.place(id, delta) {
            self.ssh.clear();
            self.note_sources(id, old.as_deref(), false, delta);
            let addresses: Vec<IpAddr> =
                self.node(id).into_iter().flat_map(NodeFacts::addresses).collect();
            self.place_covering_routers(&addresses, delta);
        }
    }

    /// Puts a node into the class it belongs in; whether that is another one than before.
    fn place(&mut self, id: NodeId, delta: &mut PolicyDelta) -> bool {
        let Some(node) = self.nodes.get(id.0).cloned().flatten() else { return false };
        let signature = self.signature_of(&node.facts);
        let known = self.signatures.get(&signature).copied();
        if known == Some(node.slot) {
            return false;
        }
        if node.slot != UNPLACED {
            self.leave(id, node.slot);
        }
        // Leaving may have emptied the class that held the signature, never the one it goes to.
        let slot = known.unwrap_or_else(|| self.open_class(signature));
        Arc::make_mut(self.members.get_mut(slot)).insert(id.0);
        *self.nodes.get_mut(id.0) = Some(PlacedNode { facts: node.facts.clone(), slot });
        delta.moved.insert(id.0);
        // Another router may carry its routes for a `via` grant now.
        for route in node.facts.active_routes.iter().filter_map(|route| self.routes.get(route)) {
            delta.routers.extend(route.advertisers.iter().map(|router| router.0));
        }
        true
    }

    fn leave(&mut self, id: NodeId, slot: u32) {
        let members = Arc::make_mut(self.members.get_mut(slot));
        members.remove(id.0);
        if members.is_empty() {
            self.close_class(slot);
        }
    }

    fn signature_of(&self, facts: &NodeFacts) -> Signature {
        let members = self.members_of(facts);
        let (mut hits, mut covered) = (members.clone(), Vec::new());
        if !facts.active_routes.is_empty() {
            for route in facts.subnet_routes() {
                let Some(route) = self.routes.get(&route) else { continue };
                hits.extend(route.atoms.iter());
                covered.extend(route.covered.iter().filter(|other| **other != facts.id));
            }
            if facts.is_exit_node() {
                hits.push(self.program.exit);
            }
            hits.extend(self.vias_routed_by(facts, &members));
            covered.sort_unstable();
            covered.dedup();
        }
        self.program.complete(&mut hits);
        let members: Atoms = members.into();
        Signature {
            hits: if *hits == *members { members.clone() } else { hits.into() },
            members,
            routes: facts.active_routes.clone(),
            covered: covered.into(),
            user: facts.user().filter(|_| self.program.has_self()),
        }
    }

    /// What selects a node, which need not be one of the tailnet's, but for `*`; sorted.
    pub(crate) fn members_of(&self, facts: &NodeFacts) -> Vec<Atom> {
        let program = &*self.program;
        let identities = &*self.identities;
        let mut atoms = Vec::new();
        match &facts.owner {
            NodeOwner::User(user) => {
                atoms.extend(identities.member);
                if let Some(user) = self.users.get(user) {
                    atoms.extend(&user.atoms);
                }
            }
            NodeOwner::Tags(tags) => {
                atoms.extend(identities.tagged);
                atoms.extend(tags.iter().filter_map(|tag| identities.tags.get(tag)));
            }
        }
        for address in facts.addresses() {
            program.literals.add_overlapping(address.into(), &mut atoms);
        }
        atoms.sort_unstable();
        atoms.dedup();
        let mut narrowed: Vec<u32> = program.postured_everybody.clone();
        for atom in &atoms {
            narrowed.extend_from_slice(program.postured_by.of(*atom));
        }
        narrowed.sort_unstable();
        narrowed.dedup();
        for number in narrowed {
            let Postured { atom, postures, .. } = &program.postured[number as usize];
            if postures.iter().any(|name| self.meets(name, facts)) {
                // Beyond all selectors, and in order.
                atoms.push(*atom);
            }
        }
        atoms
    }

    fn meets(&self, posture: &str, facts: &NodeFacts) -> bool {
        let conditions = self.policy.postures.get(posture);
        conditions.is_some_and(|conditions| posture::meets(conditions, &facts.device))
    }

    fn open_class(&mut self, signature: Signature) -> u32 {
        let slot = self.free_slots.peek().copied().unwrap_or(self.slot_count);
        if slot == self.slot_count {
            self.slot_count += 1;
        } else {
            self.free_slots.pop_mut();
        }
        let program = self.program.clone();
        let sees_everybody = program.all_to_all
            || signature.hits.iter().any(|atom| {
                let marks = program.marks[*atom as usize];
                marks.reaches_everybody || marks.reached_by_everybody
            });
        let reaches_self = signature.user.is_some() && program.does_reach_self(&signature.members);
        if sees_everybody {
            Arc::make_mut(&mut self.everybody).insert(slot);
        } else if !self.is_in_bulk {
            let row = self.row_of(slot, &signature, reaches_self);
            for other in &row {
                Arc::make_mut(self.rows.get_mut(other)).insert(slot);
            }
            *self.rows.get_mut(slot) = Arc::new(row);
        }
        for atom in &*signature.hits {
            Arc::make_mut(self.hit.get_mut(*atom)).insert(slot);
        }
        if let Some(user) = signature.user {
            insert_into(&mut self.user_classes, user, slot);
        }
        let signature = Arc::new(signature);
        self.signatures.insert_mut(signature.clone(), slot);
        let id = ClassId(self.next_class);
        self.next_class += 1;
        let candidates = OnceLock::new();
        let class = Class { id, signature, sees_everybody, reaches_self, candidates };
        *self.classes.get_mut(slot) = Some(Arc::new(class));
        *self.members.get_mut(slot) = Arc::default();
        slot
    }

    /// The classes that a class in the making sees, but those that see everybody.
    fn row_of(&self, slot: u32, signature: &Signature, reaches_self: bool) -> RoaringBitmap {
        let program = &*self.program;
        let mut others: Vec<Atom> = Vec::new();
        for atom in &*signature.hits {
            others.extend_from_slice(program.reaches.of(*atom));
            others.extend_from_slice(program.reached_by.of(*atom));
        }
        others.sort_unstable();
        others.dedup();
        let mut seen = Slots::of_len(self.slot_count);
        for slots in others.iter().filter_map(|atom| self.hit.get(*atom)) {
            slots.iter().for_each(|slot| seen.insert(slot));
        }
        let own = signature.user.and_then(|user| self.user_classes.get(&user));
        for other in own.iter().flat_map(|slots| slots.iter()) {
            if reaches_self || self.class_at(other).is_some_and(|class| class.reaches_self) {
                seen.insert(other);
            }
        }
        let mut row: RoaringBitmap = seen.into_iter().collect();
        row -= &*self.everybody;
        if reaches_self || do_share(&signature.hits, &others) {
            row.insert(slot);
        }
        row
    }

    fn close_class(&mut self, slot: u32) {
        let Some(class) = self.classes.get_mut(slot).take() else { return };
        let signature = &class.signature;
        for atom in &*signature.hits {
            Arc::make_mut(self.hit.get_mut(*atom)).remove(slot);
        }
        if let Some(user) = signature.user {
            remove_from(&mut self.user_classes, user, slot);
        }
        if class.sees_everybody {
            Arc::make_mut(&mut self.everybody).remove(slot);
        }
        for other in &*std::mem::take(self.rows.get_mut(slot)) {
            if other != slot {
                Arc::make_mut(self.rows.get_mut(other)).remove(slot);
            }
        }
        self.signatures.remove_mut(signature);
        self.free_slots.push_mut(slot);
    }

    /// Notes what has other addresses since a node has other selectors, or another owner or other addresses
    /// (`is_another`).
    fn note_sources(
        &mut self,
        id: NodeId,
        old: Option<&Signature>,
        is_another: bool,
        delta: &mut PolicyDelta,
    ) {
        let Some(new) = self.class(id).map(|class| class.signature.clone()) else { return };
        let old: &[Atom] = old.map_or(&[], |old| &old.members);
        for (atoms, others) in [(old, &*new.members), (&*new.members, old)] {
            for atom in atoms {
                if is_another || others.binary_search(atom).is_err() {
                    self.stamp(*atom, delta);
                }
            }
        }
    }

    fn stamp(&mut self, atom: Atom, delta: &mut PolicyDelta) {
        *self.stamps.get_mut(atom) = self.program.next_stamp();
        delta.sources.insert(atom);
        if self.firsts.get().is_some() {
            self.firsts = Arc::default();
        }
    }

    /// Names the state of everything that a source's text is made of.
    pub(crate) fn stamp_of(&self, key: SourceKeyId) -> u64 {
        let key = self.program.keys.get(key);
        let stamps = key.atoms.iter().filter_map(|atom| self.stamps.get(*atom)).copied();
        stamps.chain(key.is_everybody.then_some(self.routes_stamp)).max().unwrap_or_default()
    }

    /// Places the routers again whose routes hold one of these addresses.
    fn place_covering_routers(&mut self, addresses: &[IpAddr], delta: &mut PolicyDelta) {
        let covering: Vec<IpNet> = self
            .covering_routes
            .iter()
            .filter(|route| addresses.iter().any(|address| route.contains(address)))
            .copied()
            .collect();
        for route in covering {
            self.cover(route, delta);
        }
    }
}

/// Slots as bits: to collect many of them, in any order.
struct Slots(Vec<u64>);

impl Slots {
    fn of_len(len: u32) -> Self {
        Self(vec![0; len as usize / 64 + 1])
    }

    fn insert(&mut self, slot: u32) {
        self.0[slot as usize / 64] |= 1 << (slot % 64);
    }

    /// In ascending order.
    fn into_iter(self) -> impl Iterator<Item = u32> {
        (0..).zip(self.0).flat_map(|(place, mut word): (u32, u64)| {
            std::iter::from_fn(move || {
                let bit = word.checked_ilog2().map(|_| word.trailing_zeros())?;
                word &= word - 1;
                Some(place * 64 + bit)
            })
        })
    }
}

fn insert_into(sets: &mut HashTrieMapSync<UserId, Arc<RoaringBitmap>>, user: UserId, item: u32) {
    match sets.get_mut(&user) {
        Some(set) => {
            Arc::make_mut(set).insert(item);
        }
        None => sets.insert_mut(user, Arc::new([item].into_iter().collect())),
    }
}

fn remove_from(sets: &mut HashTrieMapSync<UserId, Arc<RoaringBitmap>>, user: UserId, item: u32) {
    let Some(set) = sets.get_mut(&user) else { return };
    Arc::make_mut(set).remove(item);
    if set.is_empty() {
        sets.remove_mut(&user);
    }
}
