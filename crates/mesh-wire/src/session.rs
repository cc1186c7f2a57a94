//! The rules that the messages of one map session obey, as far as the messages themselves can tell.
//!
//! Clients do not complain when they are broken: they drop half a batch, rebuild their netmap or lose a name.
//! The streamer asserts them in debug builds, tests always.
//!
//! Source: tailscale `control/controlclient/map.go`, `ipn/ipnlocal/node_backend.go`, `types/netmap/nodemut.go`.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::{MapResponse, Node, NodeId, UserId, is_incremental};

/// The name under which `null` stands for every packet filter.
const ALL_FILTERS: &str = "*";

/// What a client knows after the messages of its session so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionRules {
    started: bool,
    peers: BTreeSet<NodeId>,
    profiles: BTreeSet<UserId>,
    /// Names of the packet filters.
    filters: BTreeSet<String>,
}

/// The first rule that a message breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RuleBroken {
    /// The client ends the session.
    #[error("first message of the session has no node")]
    FirstWithoutNode,
    /// The client drops what comes with a keep-alive.
    #[error("keep-alive carries what the client does not read there")]
    KeepAliveWithState,
    /// The client ignores the changes.
    #[error("changes of peers beside the full list of peers")]
    DeltasWithPeers,
    /// The client rebuilds its netmap for changes that it could apply in place.
    #[error("changes of peers or packet filters beside configuration")]
    DeltasWithConfig,
    /// Client and server do not hold the same filters.
    #[error("a packet filter that the client does not have is deleted")]
    UnknownFilter,
    /// The client rebuilds its netmap for this patch.
    #[error("patch of node {0} sets a field that clients do not patch in place")]
    SlowPatch(NodeId),
    /// The client drops all patches of the message.
    #[error("node {0} is not known to the client")]
    UnknownNode(NodeId),
    /// What the client makes of it depends on the order in which it sorts changes.
    #[error("node {0} is in the message twice")]
    NodeTwice(NodeId),
    /// The client shows no owner.
    #[error("profile of user {user} is missing, which node {node} names")]
    ProfileMissing {
        /// The node that names the user.
        node: NodeId,
        /// The user.
        user: UserId,
    },
}

impl SessionRules {
    /// The rules of a session that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// The peers that the client knows.
    pub fn peers(&self) -> &BTreeSet<NodeId> {
        &self.peers
    }

    /// Checks the next message of the session, and learns from it what the client then knows.
    ///
    /// A message that breaks a rule teaches nothing.
    ///
    /// # Errors
    /// [`RuleBroken`] names the first broken rule.
    pub fn apply(&mut self, message: &MapResponse) -> Result<(), RuleBroken> {
        if message.keep_alive {
            return check_keep_alive(message);
        }
        if !self.started && message.node.is_none() {
            return Err(RuleBroken::FirstWithoutNode);
        }
        check_mixture(message)?;
        self.check_ids(message)?;
        self.check_filters(message)?;
        self.check_profiles(message)?;
        self.learn(message);
        Ok(())
    }

    fn check_ids(&self, message: &MapResponse) -> Result<(), RuleBroken> {
        let whole = message.peers.iter().chain(&message.peers_changed).map(|node| node.id);
        let patched = message.peers_changed_patch.iter().map(|patch| patch.node_id);
        let flipped = message.peer_seen_change.keys().chain(message.online_change.keys());
        let known = message.peers_removed.iter().chain(flipped).copied().chain(patched);
        if let Some(id) = known.clone().find(|id| !self.peers.contains(id)) {
            return Err(RuleBroken::UnknownNode(id));
        }
        let mut named = BTreeSet::new();
        match whole.chain(known).find(|id| !named.insert(*id)) {
            Some(id) => Err(RuleBroken::NodeTwice(id)),
            None => Ok(()),
        }
    }

    fn check_filters(&self, message: &MapResponse) -> Result<(), RuleBroken> {
        let filters = &message.packet_filters;
        let is_delta = !filters.is_empty() && !clears_filters(message);
        if is_delta && self.started && message.has_config() {
            return Err(RuleBroken::DeltasWithConfig);
        }
        let mut deleted = filters.iter().filter(|(_, rules)| rules.is_none());
        let is_unknown = |name: &String| name != ALL_FILTERS && !self.filters.contains(name);
        if deleted.any(|(name, _)| is_unknown(name)) {
            return Err(RuleBroken::UnknownFilter);
        }
        Ok(())
    }

    fn check_profiles(&self, message: &MapResponse) -> Result<(), RuleBroken> {
        let sent: BTreeSet<UserId> = message.user_profiles.iter().map(|it| it.id).collect();
        let missing = |user: &UserId| !sent.contains(user) && !self.profiles.contains(user);
        let peers = message.peers.iter().chain(&message.peers_changed);
        for node in peers.chain(message.node.as_deref()) {
            if let Some(user) = users_of(node).find(missing) {
                return Err(RuleBroken::ProfileMissing { node: node.id, user });
            }
        }
        Ok(())
    }

    fn learn(&mut self, message: &MapResponse) {
        self.started = true;
        if !message.peers.is_empty() {
            self.peers = message.peers.iter().map(|node| node.id).collect();
        }
        for id in &message.peers_removed {
            self.peers.remove(id);
        }
        self.peers.extend(message.peers_changed.iter().map(|node| node.id));
        self.profiles.extend(message.user_profiles.iter().map(|profile| profile.id));
        if clears_filters(message) {
            self.filters.clear();
        }
        for (name, rules) in &message.packet_filters {
            if rules.is_some() {
                self.filters.insert(name.clone());
            } else {
                self.filters.remove(name);
            }
        }
    }
}

/// Whether all packet filters go before those of the message come.
fn clears_filters(message: &MapResponse) -> bool {
    message.packet_filters.get(ALL_FILTERS).is_some_and(Option::is_none)
}

/// The owner, and the sharer if there is one.
fn users_of(node: &Node) -> impl Iterator<Item = UserId> {
    [node.user].into_iter().chain((node.sharer != UserId(0)).then_some(node.sharer))
}

/// Source: tailscale `control/controlclient/direct.go`, the read loop of `sendMapRequest`.
fn check_keep_alive(message: &MapResponse) -> Result<(), RuleBroken> {
    let rest = MapResponse {
        keep_alive: false,
        ping_request: None,
        pop_browser_url: String::new(),
        client_version: None,
        control_time: None,
        control_dial_plan: None,
        ..message.clone()
    };
    if rest == MapResponse::default() { Ok(()) } else { Err(RuleBroken::KeepAliveWithState) }
}

fn check_mixture(message: &MapResponse) -> Result<(), RuleBroken> {
    if message.has_peer_deltas() && !message.peers.is_empty() {
        return Err(RuleBroken::DeltasWithPeers);
    }
    if let Some(patch) = message.peers_changed_patch.iter().find(|patch| !patch.is_fast()) {
        return Err(RuleBroken::SlowPatch(patch.node_id));
    }
    if message.has_peer_deltas() && !is_incremental(message) {
        return Err(RuleBroken::DeltasWithConfig);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
