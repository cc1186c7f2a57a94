//! Whom an event concerns: the nodes whose packet filters and SSH rules hold what came, went or changed.

use mesh_model::{NodeId, UserId};
use roaring::RoaringBitmap;

use super::CompiledPolicy;
use super::classes::Slots;
use crate::delta::PolicyDelta;
use crate::facts::NodeFacts;
use crate::policy::{Selector, SelectorId, SshRule, SshUser};
use crate::program::Atom;
use crate::sources::SourceKeyId;

impl CompiledPolicy {
    /// Names a node that came, went, has other addresses or is in another class, and those whose filters are made of
    /// their user's own nodes.
    pub(crate) fn name_moved(&self, id: NodeId, delta: &mut PolicyDelta) {
        delta.moved.insert(id.0);
        delta.filters.insert(id.0);
        if !self.policy.ssh.is_empty() {
            delta.ssh.insert(id.0);
        }
        if let Some(user) = self.node(id).and_then(NodeFacts::user) {
            self.name_own(user, delta);
        }
    }

    /// Names the nodes of a user if the policy has rules about users' own nodes.
    pub(crate) fn name_own(&self, user: UserId, delta: &mut PolicyDelta) {
        if !self.is_in_bulk
            && self.program.has_self()
            && let Some(own) = self.nodes_of_user(user)
        {
            delta.filters |= own;
        }
    }

    /// Names the nodes whose packet filters hold the addresses of an atom.
    pub(crate) fn name_receivers(&self, atom: Atom, delta: &mut PolicyDelta) {
        if self.is_in_bulk {
            return;
        }
        for key in self.program.keys_of(atom) {
            self.name_receivers_of(*key, delta);
        }
        // A companion's addresses are one set, of which routers hold what meets their routes.
        if self.program.companions.contains(atom) {
            let covering = self.covering_routes.iter().filter_map(|route| self.routes.get(route));
            delta.filters.extend(covering.flat_map(|route| &route.advertisers).map(|id| id.0));
        }
    }

    /// Names the nodes whose packet filters hold `*` as a source.
    pub(crate) fn name_receivers_of_everybody(&self, delta: &mut PolicyDelta) {
        if !self.is_in_bulk {
            for key in &self.program.keys_of_everybody {
                self.name_receivers_of(*key, delta);
            }
        }
    }

    fn name_receivers_of(&self, key: SourceKeyId, delta: &mut PolicyDelta) {
        if delta.is_first(key) {
            let destinations = self.program.destinations_by_key(key).iter().copied();
            self.add_receivers(destinations, &mut delta.filters);
        }
    }

    /// Adds the nodes that hold rules of these destinations.
    pub(crate) fn add_receivers(
        &self,
        destinations: impl Iterator<Item = Atom>,
        nodes: &mut RoaringBitmap,
    ) {
        let program = &*self.program;
        let mut slots = Slots::of_len(self.slot_count);
        for atom in destinations {
            if program.everybody.contains(&atom) {
                *nodes |= &*self.node_ids;
                return;
            }
            let exit = program.inside_internet.binary_search(&atom).is_ok().then_some(program.exit);
            let hit =
                [Some(atom), exit].into_iter().flatten().filter_map(|atom| self.hit.get(atom));
            hit.flat_map(|slots| slots.iter()).for_each(|slot| slots.insert(slot));
        }
        for members in slots.into_iter().filter_map(|slot| self.members.get(slot)) {
            members.add_to(nodes);
        }
    }

    /// Names the nodes whose SSH rules hold the addresses of some atoms, or of some users, since theirs changed.
    pub(crate) fn name_ssh(
        &self,
        atoms: &[Atom],
        owners: [Option<UserId>; 2],
        delta: &mut PolicyDelta,
    ) {
        if self.is_in_bulk {
            return;
        }
        let is_any = |selectors: &[SelectorId]| selectors.iter().any(|it| atoms.contains(&it.0));
        for rule in &self.policy.ssh {
            if is_any(&rule.recorder) {
                self.add_ssh_servers(rule, &mut delta.ssh);
            } else if is_any(&rule.src) {
                delta.ssh |= self.nodes_of_any(&rule.dst);
                let own = owners.iter().flatten().filter_map(|user| self.nodes_of_user(*user));
                own.for_each(|own| delta.ssh |= own);
            }
        }
    }

    /// Names the nodes whose SSH rules may hold the login of a user.
    pub(crate) fn name_logins(&self, user: UserId, delta: &mut PolicyDelta) {
        if self.is_in_bulk {
            return;
        }
        let by_login = |user: &SshUser| matches!(user, SshUser::LocalPart(_));
        for rule in self.policy.ssh.iter().filter(|rule| rule.users.iter().any(by_login)) {
            delta.ssh |= self.nodes_of_any(&rule.dst);
            if let Some(own) = self.nodes_of_user(user) {
                delta.ssh |= own;
            }
        }
    }

    /// Adds all nodes that an SSH rule is for.
    pub(crate) fn add_ssh_servers(&self, rule: &SshRule, nodes: &mut RoaringBitmap) {
        *nodes |= self.nodes_of_any(&rule.dst) | self.nodes_of_any(&rule.src);
        let is_self =
            |selector: &SelectorId| *self.policy.selector(*selector) == Selector::SelfNodes;
        if rule.dst.iter().any(is_self) {
            self.owned.values().for_each(|own| *nodes |= &**own);
        }
    }
}
