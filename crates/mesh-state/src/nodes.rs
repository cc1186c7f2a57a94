//! What happens to nodes that are in: streams, updates, admin changes, and what falls due.

use std::sync::Arc;

use ipnet::IpNet;
use mesh_keys::{DiscoPublic, NodePublic};
use mesh_model::{
    Hostinfo, Node, NodeId, Owner, SessionId, Tag, Timestamp, check_label, label_from_hostname,
};

use crate::deadlines::{Deadline, removal_of};
use crate::policy::approvable;
use crate::register::sorted;
use crate::{Context, Draft, NodeUpdate, Outcome, Refusal};

/// The session of a node that was online when the last process ended. Every stream takes over from it.
pub(crate) const PRESUMED: SessionId = SessionId(0);

impl Draft {
    pub(crate) fn connect(
        &mut self,
        node: NodeId,
        node_key: &NodePublic,
        disco_key: DiscoPublic,
        context: &Context,
    ) -> Result<Outcome, Refusal> {
        let mut node = Node::clone(self.node(node)?);
        if node.node_key != *node_key {
            return Err(Refusal::NodeNotFound);
        }
        let session = SessionId(self.state.last_session.0 + 1);
        self.state.last_session = session;
        node.session = Some(session);
        node.last_seen_at = None;
        if node.disco_key.is_zero() {
            node.disco_key = disco_key;
        }
        self.put_node(node, context);
        Ok(Outcome::Connected(session))
    }

    pub(crate) fn disconnect(
        &mut self,
        node: NodeId,
        session: SessionId,
        context: &Context,
    ) -> Outcome {
        if let Some(node) =
            self.state.tailnet.node(node).filter(|node| node.session == Some(session))
        {
            let gone = Node { session: None, last_seen_at: Some(context.now), ..Node::clone(node) };
            self.put_node(gone, context);
        }
        Outcome::Done
    }

    pub(crate) fn update_node(&mut self, update: &NodeUpdate, context: &Context) -> Outcome {
        let current = self.state.tailnet.node(update.node);
        let Some(old) = current.filter(|node| node.node_key == update.node_key).cloned() else {
            return Outcome::Done;
        };
        let mut node = Node::clone(&old);
        if !update.disco_key.is_zero() {
            node.disco_key = update.disco_key;
        }
        if !is_same_set(&node.endpoints, &update.endpoints) {
            node.endpoints.clone_from(&update.endpoints);
        }
        node.home_derp = update.home_derp.or(node.home_derp);
        node.capability_version = update.capability_version;
        if let Some(hostinfo) = &update.hostinfo {
            self.take_in_hostinfo(&mut node, hostinfo);
            if node.hostinfo.routable_ips != old.hostinfo.routable_ips {
                self.approve_by_policy(&mut node);
            }
        }
        if node != *old {
            self.put_node(node, context);
        }
        Outcome::Done
    }

    /// Takes a client's word on its machine; the name follows the hostname until an admin chooses one.
    pub(crate) fn take_in_hostinfo(&mut self, node: &mut Node, hostinfo: &Hostinfo) {
        if node.hostinfo.hostname != hostinfo.hostname && !node.name_is_chosen {
            node.given_name =
                self.free_label(&label_from_hostname(&hostinfo.hostname), Some(node.id));
        }
        if node.hostinfo != *hostinfo {
            node.hostinfo = hostinfo.clone();
        }
    }

    /// The label, or its first variant that no other node has.
    pub(crate) fn free_label(&mut self, label: &str, of: Option<NodeId>) -> String {
        let Self { state, .. } = self;
        state.labels.first_free(label, |label| {
            state.tailnet.node_by_name(label).is_none_or(|holder| Some(holder.id) == of)
        })
    }

    pub(crate) fn set_node_expiry(
        &mut self,
        node: NodeId,
        expires_at: Option<Timestamp>,
        context: &Context,
    ) -> Result<Outcome, Refusal> {
        let node = Node { expires_at, ..Node::clone(self.node(node)?) };
        Ok(Outcome::Node(self.put_node(node, context)))
    }

    pub(crate) fn rename_node(
        &mut self,
        node: NodeId,
        name: &str,
        context: &Context,
    ) -> Result<Outcome, Refusal> {
        let old = self.node(node)?;
        check_label(name)?;
        if self.state.tailnet.node_by_name(name).is_some_and(|holder| holder.id != node) {
            return Err(Refusal::NameTaken(name.to_owned()));
        }
        let node = Node { given_name: name.to_owned(), name_is_chosen: true, ..Node::clone(old) };
        Ok(Outcome::Node(self.put_node(node, context)))
    }

    pub(crate) fn tag_node(
        &mut self,
        node: NodeId,
        tags: &[Tag],
        context: &Context,
    ) -> Result<Outcome, Refusal> {
        let old = self.node(node)?;
        if tags.is_empty() {
            return Err(Refusal::NoTags);
        }
        self.check_tags_are_defined(tags)?;
        let node = Node { owner: Owner::Tags(sorted(tags.to_vec())), ..Node::clone(old) };
        Ok(Outcome::Node(self.put_node(node, context)))
    }

    /// Tags must be defined, as far as the policy defines any: while there is none, as on the first day of a
    /// tailnet, nothing could be said about a tag anyway, and admins may prepare their nodes.
    fn check_tags_are_defined(&self, tags: &[Tag]) -> Result<(), Refusal> {
        let policy = &self.state.policy;
        let is_undefined = |tag: &&Tag| !policy.is_tag_defined(tag.as_str());
        match tags.iter().find(is_undefined) {
            Some(tag) if !policy.policy().tag_owners.is_empty() => {
                Err(Refusal::TagUndefined(tag.clone()))
            }
            Some(_) | None => Ok(()),
        }
    }

    pub(crate) fn approve_routes(
        &mut self,
        node: NodeId,
        routes: &[IpNet],
        context: &Context,
    ) -> Result<Outcome, Refusal> {
        let old = self.node(node)?;
        let approved_routes = approvable(routes.iter().copied());
        let node = Node { approved_routes, ..Node::clone(old) };
        Ok(Outcome::Node(self.put_node(node, context)))
    }

    pub(crate) fn delete_node(
        &mut self,
        node: NodeId,
        context: &Context,
    ) -> Result<Outcome, Refusal> {
        let node = self.node(node)?.clone();
        self.remove_node(&node, context);
        Ok(Outcome::Done)
    }

    pub(crate) fn sweep(&mut self, context: &Context) -> Outcome {
        self.changes.logins |= self.state.logins.forget_expired(context.now);
        while let Some(deadline) = self.state.deadlines.pop_due(context.now) {
            match deadline {
                Deadline::Node(node) => self.sweep_node(node, context),
                Deadline::PreauthKey(key) => self.forget_preauth_key(key, context),
                Deadline::Tombstone(machine, key) => self.remove_tombstone(machine, key),
                Deadline::RestartGrace => self.end_restart_grace(context),
            }
        }
        Outcome::Done
    }

    fn end_restart_grace(&mut self, context: &Context) {
        let is_away = |node: &&Arc<Node>| node.session == Some(PRESUMED);
        let away: Vec<NodeId> =
            self.state.tailnet.nodes().filter(is_away).map(|node| node.id).collect();
        for node in away {
            self.disconnect(node, PRESUMED, context);
        }
    }

    fn sweep_node(&mut self, node: NodeId, context: &Context) {
        let Some(node) = self.state.tailnet.node(node).cloned() else { return };
        if removal_of(&node, &self.state.settings).is_some_and(|at| at <= context.now) {
            self.remove_node(&node, context);
        } else if node.is_expired(context.now) {
            self.changes.nodes.insert(node.id.0);
            self.changes.key_ran_out = true;
        }
    }

    pub(crate) fn node(&self, id: NodeId) -> Result<&Arc<Node>, Refusal> {
        self.state.tailnet.node(id).ok_or(Refusal::NodeNotFound)
    }
}

/// Whether two lists hold the same, in whatever order.
fn is_same_set<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    one.len() == other.len() && one.iter().all(|item| other.contains(item))
}
