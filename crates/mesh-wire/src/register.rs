//! `POST /machine/register`.
//!
//! Source: tailscale `tailcfg/tailcfg.go`, `RegisterRequest`, `RegisterResponse`.

use jiff::Timestamp;
use mesh_keys::{NetworkLockPublic, NodePublic};

use crate::codec::wire_struct;
use crate::{Base64, CapabilityVersion, Hostinfo, Login, SecretText, User};

wire_struct! {
    /// A client wants to join, to come back, to renew its key or to leave.
    ///
    /// Device certificates (`SignatureType`, `DeviceCert`, `Signature`, `Timestamp`) are not read.
    pub struct RegisterRequest {
        /// What the client understands.
        pub version: CapabilityVersion = "Version" (always);
        /// The key to register; a zero one is refused.
        pub node_key: NodePublic = "NodeKey" (always);
        /// The key before this one, or zero. Sent again after later restarts.
        pub old_node_key: NodePublic = "OldNodeKey" (always);
        /// The tailnet-lock key.
        pub nl_key: NetworkLockPublic = "NLKey" (always);
        /// A preauth key, sent with every request of the same process.
        pub auth: Option<RegisterAuth> = "Auth";
        /// When the client wants its key to expire: the past is a logout, `None` leaves it to the server.
        pub expiry: Option<Timestamp> = "Expiry";
        /// The `AuthURL` that was answered before: wait until the user has been there.
        pub followup: String = "Followup" (always);
        /// What the node says of itself, with the name and the tags it wants.
        pub hostinfo: Option<Box<Hostinfo>> = "Hostinfo";
        /// Whether to forget the node when it goes away.
        pub ephemeral: bool = "Ephemeral";
        /// Tailnet-lock signature over `node_key`.
        pub node_key_signature: Base64 = "NodeKeySignature";
        /// The tailnet that the client wants; with `required:` no other will do.
        pub tailnet: String = "Tailnet";
    }
}

wire_struct! {
    /// How a client identifies itself when it registers.
    pub struct RegisterAuth {
        /// A preauth key.
        pub auth_key: SecretText = "AuthKey";
    }
}

wire_struct! {
    /// The answer to [`RegisterRequest`], also when it is a refusal: with status 200 and `error`.
    ///
    /// All fields are always written, for the Rust client reads none of them as optional; and as that client looks
    /// at `machine_authorized` alone, it is false whenever `error` or `node_key_expired` is set.
    pub struct RegisterResponse {
        /// Whose node it is.
        pub user: User = "User" (always);
        /// How its owner signed in; the same name as in the map's profiles.
        pub login: Login = "Login" (always);
        /// Whether the client must come again with another key. Never twice in a row.
        pub node_key_expired: bool = "NodeKeyExpired" (always);
        /// Whether the node may go on to the map.
        pub machine_authorized: bool = "MachineAuthorized" (always);
        /// Where the user shall sign in, or empty.
        pub auth_url: String = "AuthURL" (always);
        /// Tailnet-lock signature to be made again with another key.
        pub node_key_signature: Base64 = "NodeKeySignature" (always);
        /// A refusal in words for the user, or empty.
        pub error: String = "Error" (always);
    }
}
