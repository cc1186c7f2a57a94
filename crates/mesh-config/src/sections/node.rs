//! `node`: lifetime of nodes.

use std::time::Duration;

use crate::finding::Report;
use crate::key::section;

/// What an ephemeral node's timeout must exceed: clients hear a keep-alive every minute, and one
/// that only missed it must not be deleted. The same bound as headscale's.
const INACTIVITY_TIMEOUT_MIN: Duration = Duration::from_secs(65);

section! {
    /// Lifetime of nodes.
    pub struct Node {
        /// How long a node's key is valid before its user must log in again, a duration; 0 for ever.
        /// Tagged nodes never expire.
        pub expiry: Duration = "node.expiry", "0";
    }
    sections {
        /// Nodes that vanish when they are gone.
        pub ephemeral: Ephemeral;
    }
}

section! {
    /// Nodes that vanish when they are gone.
    pub struct Ephemeral {
        /// How long an ephemeral node may be offline before it is deleted, a duration of more than 65s.
        pub inactivity_timeout: Duration = "node.ephemeral.inactivity_timeout", "30m", also "ephemeral_node_inactivity_timeout";
    }
}

impl Node {
    pub(crate) fn check(&self, report: &mut Report) {
        if self.ephemeral.inactivity_timeout <= INACTIVITY_TIMEOUT_MIN {
            let message = "must be longer than 65s, for clients are heard of once a minute";
            report.error("node.ephemeral.inactivity_timeout", message);
        }
    }
}
