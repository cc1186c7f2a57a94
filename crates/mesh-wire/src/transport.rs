//! What is said before there is a session: the server's keys and the early payload.
//!
//! Source: tailscale `tailcfg/tailcfg.go`, `OverTLSPublicKeyResponse`, `EarlyNoise`.

use mesh_keys::{ChallengePublic, MachinePublic};

use crate::codec::wire_struct;

wire_struct! {
    /// The answer to `GET /key`. Both keys are always written: the Rust client fails without the old one.
    pub struct OverTlsPublicKeyResponse {
        /// Key of the protocol before Noise; zero, for nobody speaks it here.
        pub legacy_public_key: MachinePublic = "legacyPublicKey" (always);
        /// The server's Noise key.
        pub public_key: MachinePublic = "publicKey" (always);
    }
}

wire_struct! {
    /// The early payload, sent right after the handshake. At most 1024 bytes for the Rust client.
    pub struct EarlyNoise {
        /// A key to prove the node key against; no client answers it.
        pub node_key_challenge: ChallengePublic = "nodeKeyChallenge" (always);
    }
}
