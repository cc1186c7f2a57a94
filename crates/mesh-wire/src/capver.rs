//! The capability version: one growing number that says what a client understands.
//!
//! Only the gates that this server acts on have a name here.
//!
//! Source: tailscale `tailcfg/tailcfg.go`, the history above `CurrentCapabilityVersion`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec::leaf;

/// What a client understands, as `Version` in requests, `v` in `/key` and the version of the Noise protocol.
///
/// A version above [`CapabilityVersion::CURRENT`] is a newer client and never a reason to refuse.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct CapabilityVersion(pub u32);

impl CapabilityVersion {
    /// The oldest client that is served: Tailscale 1.80 of January 2025.
    ///
    /// It brings `cap:` sources in filters (109), `Node.HomeDERP` (111), absent `AllowedIPs` (112), read-only
    /// streams (68) and named packet filters (81), so none of these has a gate.
    pub const MIN_SUPPORTED: Self = Self(113);
    /// Understands `DERPRegion.NoMeasureNoHome`; older ones know only `Avoid`.
    pub const NO_MEASURE_NO_HOME: Self = Self(115);
    /// Understands `DisplayMessages`; older ones get `Health`.
    pub const DISPLAY_MESSAGES: Self = Self(117);
    /// Understands `Resolver.UseWithExitNode`.
    pub const USE_WITH_EXIT_NODE: Self = Self(125);
    /// What the `tailscale` crate 0.6.1 says of itself; `MIN_SUPPORTED` must not pass it.
    pub const RUST_CLIENT: Self = Self(130);
    /// Waits and tries again when `/machine/register` answers 429.
    pub const REGISTER_RETRY_AFTER: Self = Self(137);
    /// Applies changed and removed peers, filters and profiles without rebuilding its netmap (release 1.100).
    pub const INCREMENTAL_PEERS: Self = Self(141);
    /// The version that these types were written from, and that our own client sends.
    pub const CURRENT: Self = Self(145);

    /// Whether the client is not too old for this server.
    pub fn is_supported(self) -> bool {
        self >= Self::MIN_SUPPORTED
    }

    /// Whether the client has what came with `gate`, one of the constants here.
    pub fn has(self, gate: Self) -> bool {
        self >= gate
    }
}

const _: () = assert!(
    CapabilityVersion::MIN_SUPPORTED.0 <= CapabilityVersion::RUST_CLIENT.0,
    "the Rust client would be refused"
);

impl fmt::Display for CapabilityVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

leaf! { CapabilityVersion, |version| version.0 == 0; }
