//! What an operator sets about a tailnet.

use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};

/// In which order addresses are given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Allocation {
    /// Upwards from the first.
    #[default]
    Sequential,
    /// Anywhere.
    Random,
}

/// Bounds on logins that wait for approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginLimits {
    /// How many may wait; the oldest makes room.
    pub pending_max: usize,
    /// How many may wait from one subnet.
    pub per_subnet_max: usize,
    /// How long one waits.
    pub lifetime: Duration,
}

/// What an operator sets about a tailnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Life of a user's node key; `None`: it does not expire.
    pub node_expiry: Option<Duration>,
    /// How long an ephemeral node may be away before it is removed.
    pub ephemeral_timeout: Duration,
    /// How long after a start nodes that were online when the last process ended still count as online, for
    /// their clients are on their way back and nobody needs to hear of it.
    pub restart_grace: Duration,
    /// How long a revoked preauth key is still listed.
    pub revoked_key_retention: Duration,
    /// Where IPv4 addresses come from, if there are any.
    pub prefix_v4: Option<Ipv4Net>,
    /// Where IPv6 addresses come from, if there are any.
    pub prefix_v6: Option<Ipv6Net>,
    /// In which order.
    pub allocation: Allocation,
    /// Bounds on waiting logins.
    pub logins: LoginLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node_expiry: None,
            ephemeral_timeout: Duration::from_mins(30),
            restart_grace: Duration::from_mins(1),
            revoked_key_retention: Duration::from_hours(168),
            prefix_v4: Some("100.64.0.0/10".parse().expect("invariant: a literal prefix")),
            prefix_v6: Some("fd7a:115c:a1e0::/48".parse().expect("invariant: a literal prefix")),
            allocation: Allocation::Sequential,
            logins: LoginLimits {
                per_subnet_max: 20,
                pending_max: 10_000,
                lifetime: Duration::from_mins(15),
            },
        }
    }
}
