//! Preauth keys and API keys, without their secrets.

use std::fmt;

use crate::{ApiKeyId, NodeId, PreauthKeyId, Tag, Timestamp, UserId};

/// An argon2id hash in PHC form. Not a secret one could log in with, but nothing to show either.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash(pub String);

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(redacted)")
    }
}

/// A preauth key: whoever presents its secret registers a node without a person's approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreauthKey {
    /// Row id.
    pub id: PreauthKeyId,
    /// The part of the key's text that names it; unique.
    pub public_id: String,
    /// Hash of the secret part.
    pub hash: SecretHash,
    /// Whose nodes it registers. With tags: who made it.
    pub user: Option<UserId>,
    /// Tags of the nodes it registers; empty for nodes owned by `user`. Sorted.
    pub tags: Vec<Tag>,
    /// Whether it registers more than one node.
    pub reusable: bool,
    /// Whether its nodes are removed when they go away.
    pub ephemeral: bool,
    /// When a single-use key was used.
    pub used_at: Option<Timestamp>,
    /// The node that used a single-use key, while it exists.
    pub used_by: Option<NodeId>,
    /// From when on it registers nothing more.
    pub expires_at: Option<Timestamp>,
    /// When an admin took it back.
    pub revoked_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// An API key: whoever presents its secret is an admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Row id.
    pub id: ApiKeyId,
    /// The part of the key's text that names it; unique.
    pub public_id: String,
    /// Hash of the secret part.
    pub hash: SecretHash,
    /// From when on it opens nothing.
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last seen, to the minute or coarser.
    pub last_seen_at: Option<Timestamp>,
}

impl ApiKey {
    /// Whether the key opens anything at `now`.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}
