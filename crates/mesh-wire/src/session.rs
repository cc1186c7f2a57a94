//! The rules that the messages of one map session obey, as far as the messages themselves can tell.
//!
//! Clients do not complain when they are broken: they drop half a batch, rebuild their netmap or lose a name.
//! The streamer asserts them in debug builds, tests always.
//!
//! Source: tailscale `control/controlclient/map.go`, `ipn/ipnlocal/node_backend.go`, `types/netmap/nodemut.go`.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::{MapResponse, Node, NodeId, UserId, is_incremental};

/// What a client knows after the messages of its session so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionRules {
    started: bool,
    peers: BTreeSet<NodeId>,
    profiles: BTreeSet<UserId>,
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
    #[error("changes of peers beside configuration")]
    DeltasWithConfig,
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
        let peers = self.peers_after(message)?;
        let profiles = self.profiles_after(message)?;
        *self = Self { started: true, peers, profiles };
        Ok(())
    }

    fn peers_after(&self, message: &MapResponse) -> Result<BTreeSet<NodeId>, RuleBroken> {
        let mut touched = BTreeSet::new();
        let mut once = |id| touched.insert(id).then_some(id).ok_or(RuleBroken::NodeTwice(id));
        if !message.peers.is_empty() {
            return message.peers.iter().map(|node| once(node.id)).collect();
        }
        let mut peers = self.peers.clone();
        for id in &message.peers_removed {
            if !peers.remove(&once(*id)?) {
                return Err(RuleBroken::UnknownNode(*id));
            }
        }
        for node in &message.peers_changed {
            peers.insert(once(node.id)?);
        }
        let patched = message.peers_changed_patch.iter().map(|patch| patch.node_id);
        let flipped = message.peer_seen_change.keys().chain(message.online_change.keys()).copied();
        for id in patched.chain(flipped) {
            if !self.peers.contains(&once(id)?) {
                return Err(RuleBroken::UnknownNode(id));
            }
        }
        Ok(peers)
    }

    fn profiles_after(&self, message: &MapResponse) -> Result<BTreeSet<UserId>, RuleBroken> {
        let mut profiles = self.profiles.clone();
        profiles.extend(message.user_profiles.iter().map(|profile| profile.id));
        let nodes = message.peers.iter().chain(&message.peers_changed);
        for node in nodes.chain(message.node.as_deref()) {
            if let Some(user) = users_of(node).find(|user| !profiles.contains(user)) {
                return Err(RuleBroken::ProfileMissing { node: node.id, user });
            }
        }
        Ok(profiles)
    }
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
