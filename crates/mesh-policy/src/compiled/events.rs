//! Events: how a compiled policy is kept up as users and nodes come, go and change.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::{NodeId, UserId};
use roaring::RoaringBitmap;

use super::{
    CompiledPolicy, Memo, PlacedNode, PlacedUser, Signature, UNPLACED, insert_into, remove_from,
};
use crate::delta::PolicyDelta;
use crate::facts::{NodeFacts, Role, UserFacts};
use crate::program::{Atom, Kind};
use crate::sources::SourceKeyId;

impl CompiledPolicy {
    /// Takes in a node that is new or has changed.
    pub fn put_node(&mut self, facts: NodeFacts, delta: &mut PolicyDelta) {
        let id = facts.id;
        let old = self.nodes.get(id.0).cloned().flatten();
        let old = old.as_ref();
        if old.is_some_and(|old| *old.facts == facts) {
            return;
        }
        self.forget();
        let is_another = old.is_none_or(|old| {
            old.facts.owner != facts.owner || !old.facts.addresses().eq(facts.addresses())
        });
        let owners = [old.and_then(|old| old.facts.user()), facts.user()];
        self.count_owner(old.map(|old| &*old.facts), &facts);
        if is_another {
            self.include_addresses(&facts);
            self.name_moved(id, delta);
            if let Some(user) = facts.user() {
                self.name_own(user, delta);
            }
            self.ssh.clear();
        }
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
        let has_moved = self.place(id, delta) || is_another;
        self.note_sources(id, old_members.as_deref(), owners, is_another, delta);
        if has_moved {
            let addresses = old.into_iter().flat_map(|old| old.facts.addresses());
            let addresses: Vec<IpAddr> =
                self.node(id).into_iter().flat_map(NodeFacts::addresses).chain(addresses).collect();
            self.place_covering_routers(&addresses, delta);
        }
    }

    /// Forgets a node.
    pub fn remove_node(&mut self, id: NodeId, delta: &mut PolicyDelta) {
        let Some(old) = self.nodes.get(id.0).cloned().flatten() else { return };
        self.forget();
        self.move_routes(id, &old.facts.active_routes, &[], delta);
        let signature = self.class_at(old.slot).map(|class| class.signature.clone());
        self.leave(id, old.slot);
        *self.nodes.get_mut(id.0) = None;
        Arc::make_mut(&mut self.node_ids).remove(id.0);
        self.ssh.clear();
        self.disown(&old.facts);
        delta.moved.insert(id.0);
        let owner = old.facts.user();
        if let Some(owner) = owner {
            self.name_own(owner, delta);
        }
        if let Some(signature) = signature {
            self.stamp_all(&signature.members, [owner, None], delta);
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
        self.forget();
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
        self.name_logins(id, delta);
        self.settle_users(self.concerned_users(id, settles_others), delta);
    }

    /// Forgets a user. Its nodes, if it has any left, are nobody's in particular.
    pub fn remove_user(&mut self, id: UserId, delta: &mut PolicyDelta) {
        let Some(old) = self.users.get(&id).cloned() else { return };
        self.forget();
        self.users.remove_mut(&id);
        self.provider_ids.remove_mut(&old.facts.provider_id);
        self.ssh.clear();
        self.name_logins(id, delta);
        let settles_others = self.identities.logins.contains_key(&old.facts.provider_id);
        self.settle_users(self.concerned_users(id, settles_others), delta);
    }

    /// Works out what selects some users.
    pub(super) fn settle_users(&mut self, users: Vec<UserId>, delta: &mut PolicyDelta) {
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
            let owner = self.node(id).and_then(NodeFacts::user);
            self.note_sources(id, old.as_deref(), [owner, None], false, delta);
            let addresses: Vec<IpAddr> =
                self.node(id).into_iter().flat_map(NodeFacts::addresses).collect();
            self.place_covering_routers(&addresses, delta);
        }
    }

    /// Notes what has other addresses since a node has other selectors, or another owner or other addresses
    /// (`is_another`). `owners` are its user and the one of before.
    fn note_sources(
        &mut self,
        id: NodeId,
        old: Option<&Signature>,
        owners: [Option<UserId>; 2],
        is_another: bool,
        delta: &mut PolicyDelta,
    ) {
        let Some(new) = self.class(id).map(|class| class.signature.clone()) else { return };
        let old: &[Atom] = old.map_or(&[], |old| &old.members);
        let mut changed: Vec<Atom> = Vec::new();
        for (atoms, others) in [(old, &*new.members), (&*new.members, old)] {
            let is_changed = |atom: &&Atom| is_another || others.binary_search(atom).is_err();
            changed.extend(atoms.iter().filter(is_changed));
        }
        changed.sort_unstable();
        changed.dedup();
        self.stamp_all(&changed, owners, delta);
    }

    /// Notes that these have other addresses. Those that are addresses have always the same.
    fn stamp_all(&mut self, atoms: &[Atom], owners: [Option<UserId>; 2], delta: &mut PolicyDelta) {
        for atom in atoms {
            if *self.program.kind(*atom) == Kind::Identity {
                *self.stamps.get_mut(*atom) = self.program.next_stamp();
                self.name_receivers(*atom, delta);
            }
        }
        self.name_ssh(atoms, owners, delta);
        self.forget_firsts();
    }

    /// Forgets what was worked out of the state before, which clones may yet be asked for.
    pub(super) fn forget(&mut self) {
        match Arc::get_mut(&mut self.memo) {
            Some(memo) => *memo = Memo::default(),
            None => self.memo = Arc::default(),
        }
    }

    /// Where merged rules stand is worked out again, apart from older clones, which may yet work out their own.
    pub(crate) fn forget_firsts(&mut self) {
        match Arc::get_mut(&mut self.firsts) {
            Some(firsts) => drop(firsts.take()),
            None => self.firsts = Arc::default(),
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
