//! The small requests inside Noise: certificates, features, attributes, audit, identity tokens.
//!
//! Source: tailscale `tailcfg/tailcfg.go`, the types of the same names.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mesh_keys::NodePublic;
use serde_json::Value;

use crate::codec::wire_struct;
use crate::{CapabilityVersion, SecretText};

/// Most attributes in one [`SetDeviceAttributesRequest`].
pub const DEVICE_ATTRIBUTES_MAX: usize = 256;

wire_struct! {
    /// `POST /machine/set-dns`: a DNS record for a certificate. Answered with `{}` when it is live.
    pub struct SetDnsRequest {
        /// What the client understands.
        pub version: CapabilityVersion = "Version" (always);
        /// Who asks.
        pub node_key: NodePublic = "NodeKey" (always);
        /// `_acme-challenge.` and the node's name.
        pub name: String = "Name" (always);
        /// `TXT`.
        pub record_type: String = "Type" (always);
        /// The record.
        pub value: String = "Value" (always);
    }
}

wire_struct! {
    /// `POST /machine/update-health`: only older clients send it.
    pub struct HealthChangeRequest {
        /// The part that is ill.
        pub subsys: String = "Subsys" (always);
        /// What ails it; empty is well again.
        pub error: String = "Error" (always);
        /// Who says so.
        pub node_key: NodePublic = "NodeKey" (always);
    }
}

wire_struct! {
    /// `POST /machine/feature/query`: may the node use this feature?
    pub struct QueryFeatureRequest {
        /// `serve`, `funnel`, ...
        pub feature: String = "Feature";
        /// Who asks.
        pub node_key: NodePublic = "NodeKey";
    }
}

wire_struct! {
    /// The answer to [`QueryFeatureRequest`].
    pub struct QueryFeatureResponse {
        /// Whether nothing is left to do.
        pub complete: bool = "Complete";
        /// What to tell the user otherwise.
        pub text: String = "Text";
        /// Where to send the user.
        pub url: String = "URL";
        /// Whether the client waits for the feature.
        pub should_wait: bool = "ShouldWait";
    }
}

wire_struct! {
    /// `PATCH /machine/set-device-attr`: attributes for posture rules.
    pub struct SetDeviceAttributesRequest {
        /// What the client understands.
        pub version: CapabilityVersion = "Version" (always);
        /// Who asks.
        pub node_key: NodePublic = "NodeKey" (always);
        /// Attribute to text, number or truth value; `null` deletes it.
        pub update: BTreeMap<String, Value> = "Update" (always, max DEVICE_ATTRIBUTES_MAX);
    }
}

wire_struct! {
    /// `POST /machine/audit-log`: something the user did that policy wants to know.
    pub struct AuditLogRequest {
        /// What the client understands.
        pub version: CapabilityVersion = "Version";
        /// Who says so.
        pub node_key: NodePublic = "NodeKey";
        /// `DISCONNECT_NODE` is the only one so far.
        pub action: String = "Action";
        /// Free text.
        pub details: String = "Details";
        /// When it was done.
        pub timestamp: Option<Timestamp> = "Timestamp";
    }
}

wire_struct! {
    /// `POST /machine/id-token`: a token that proves the node's identity to others.
    pub struct TokenRequest {
        /// What the client understands.
        pub cap_version: CapabilityVersion = "CapVersion" (always);
        /// Who asks.
        pub node_key: NodePublic = "NodeKey" (always);
        /// Whom the token is for.
        pub audience: String = "Audience" (always);
    }
}

wire_struct! {
    /// The answer to [`TokenRequest`].
    pub struct TokenResponse {
        /// The token.
        pub id_token: SecretText = "id_token" (always);
    }
}
