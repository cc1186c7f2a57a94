//! What is counted of the asking, and how it stands.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters since the start, and how it stands with the control server's list. Reading one never waits.
#[derive(Debug, Default)]
pub struct VerifyStats {
    /// Clients that the verify URL allowed.
    pub allowed: AtomicU64,
    /// Clients that it did not allow.
    pub denied: AtomicU64,
    /// Questions to the verify URL that were not answered.
    pub unanswered: AtomicU64,
    /// Gauge: nodes on the control server's list.
    pub nodes: AtomicU64,
    /// Connections that were cut because their node is no longer on the list.
    pub cuts: AtomicU64,
    /// How often following the list has ended, or could not begin.
    pub interruptions: AtomicU64,
    pub(crate) has_list: AtomicBool,
    pub(crate) is_following: AtomicBool,
}

impl VerifyStats {
    /// Whether the control server's list has come at least once. Without it only those are served whom the policy
    /// for that case lets in.
    pub fn has_list(&self) -> bool {
        self.has_list.load(Ordering::Relaxed)
    }

    /// Whether the list is up to date. While it is not, nodes on the last one are served.
    pub fn is_following(&self) -> bool {
        self.is_following.load(Ordering::Relaxed)
    }
}
