//! The texts that a tailnet's policy has had.

use crate::{PolicyVersionId, Timestamp};

/// A text of the policy, as somebody wrote it. The newest one is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyVersion {
    /// Row id: a later version has a higher one.
    pub id: PolicyVersionId,
    /// The text as it was written.
    pub text: String,
    /// BLAKE3 of `text` in 64 lower-case hex digits: equal texts have equal ones.
    pub digest: String,
    /// Who wrote it: the public id of an API key, `cli` for whoever was on the unix socket, `file` for the policy file.
    pub created_by: String,
    /// When it was put in force.
    pub created_at: Timestamp,
}
