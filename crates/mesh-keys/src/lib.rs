//! The keys of a tailnet as distinct types, so that one cannot be passed for another.
//!
//! Public keys are 32 bytes of Curve25519 with a text form of `<prefix>:<64 lower-case hex>`, as every
//! Tailscale client writes them. Private keys print nothing and are wiped when dropped. What the keys are
//! used for (Noise, DERP boxes, WireGuard) is left to the crates that do it.
//!
//! Source: tailscale `types/key`.

mod mesh;
mod private;
mod public;

pub use mesh::{MeshKey, ParseMeshKeyError};
pub use private::{DerpPrivate, DiscoPrivate, MachinePrivate, NodePrivate};
pub use public::{
    ChallengePublic, DiscoPublic, MachinePublic, NetworkLockPublic, NodePublic, ParseKeyError,
};

/// Length of every key, public or private, in bytes.
pub const KEY_BYTES: usize = 32;

#[cfg(test)]
mod tests;
