//! What falls due when, so that nothing is scanned for it.

use mesh_keys::{MachinePublic, NodePublic};
use mesh_model::{Node, NodeId, PreauthKey, PreauthKeyId, Timestamp, Tombstone};
use rpds::RedBlackTreeSetSync;

use crate::Settings;

/// How long a deleted node is remembered, for its client to be told.
const TOMBSTONE_LIFETIME: jiff::SignedDuration = jiff::SignedDuration::from_hours(30 * 24);

/// Something that falls due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Deadline {
    /// The node's key expires, or it is ephemeral and has been away for too long.
    Node(NodeId),
    /// The revoked key need not be shown any longer.
    PreauthKey(PreauthKeyId),
    /// The deleted node is forgotten.
    Tombstone(MachinePublic, NodePublic),
    /// Nodes that have not come back since the last process ended are offline.
    RestartGrace,
}

/// All deadlines in order. Derived from the rows: a row's deadlines are withdrawn before it changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deadlines(RedBlackTreeSetSync<(Timestamp, Deadline)>);

impl Deadlines {
    /// The earliest.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes the earliest, if it is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<Deadline> {
        let (at, deadline) = self.0.first().filter(|(at, _)| *at <= now)?.clone();
        self.0.remove_mut(&(at, deadline.clone()));
        Some(deadline)
    }

    /// Adds what falls due for a node after `now`. An expiry that an admin set in the past is announced by
    /// the command that set it and does not fall due again.
    pub(crate) fn add_node(&mut self, node: &Node, settings: &Settings, now: Timestamp) {
        let expiry = node.expires_at.filter(|expires_at| *expires_at > now);
        for at in expiry.into_iter().chain(removal_of(node, settings)) {
            self.0.insert_mut((at, Deadline::Node(node.id)));
        }
    }

    /// Withdraws what would fall due for a node.
    pub(crate) fn withdraw_node(&mut self, node: &Node, settings: &Settings) {
        for at in node.expires_at.into_iter().chain(removal_of(node, settings)) {
            self.0.remove_mut(&(at, Deadline::Node(node.id)));
        }
    }

    /// Adds what falls due for a preauth key.
    pub(crate) fn add_preauth_key(&mut self, key: &PreauthKey, settings: &Settings) {
        if let Some(revoked_at) = key.revoked_at {
            let at = later(revoked_at, settings.revoked_key_retention);
            self.0.insert_mut((at, Deadline::PreauthKey(key.id)));
        }
    }

    /// Adds the end of the grace period after a start.
    pub(crate) fn add_restart_grace(&mut self, settings: &Settings, now: Timestamp) {
        self.0.insert_mut((later(now, settings.restart_grace), Deadline::RestartGrace));
    }

    /// Adds what falls due for a tombstone.
    pub(crate) fn add_tombstone(&mut self, tombstone: &Tombstone) {
        let at = tombstone.deleted_at.saturating_add(TOMBSTONE_LIFETIME).unwrap_or(Timestamp::MAX);
        self.0.insert_mut((at, Deadline::Tombstone(tombstone.machine_key, tombstone.node_key)));
    }
}

/// When an ephemeral node that is away is to be removed.
pub(crate) fn removal_of(node: &Node, settings: &Settings) -> Option<Timestamp> {
    let away = node.ephemeral && node.session.is_none();
    away.then(|| later(node.last_seen_at.unwrap_or(node.created_at), settings.ephemeral_timeout))
}

/// `at` plus a span of configuration; the end of time if that is beyond it.
pub(crate) fn later(at: Timestamp, span: std::time::Duration) -> Timestamp {
    at.saturating_add(span).unwrap_or(Timestamp::MAX)
}
