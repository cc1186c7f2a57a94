//! What goes over the wire between a Tailscale client and its control server, named as in tailcfg.
//!
//! Plain types, read and written by both sides: `serde_json::from_slice` and `serde_json::to_vec` are the whole
//! interface. Field names are tailcfg's in snake case. Reading forgives what Go forgives: the case of keys, `null`
//! for a zero value, unknown fields; every text and every list that a client can grow is bounded, the size of the
//! body by who reads it. Writing leaves out what is empty, except where empty is a command: those fields are
//! `Option`s. What the values mean to a tailnet is left to the crates above.

mod codec;

mod capver;
mod id;

mod control;
mod derp;
mod dns;
mod feature;
mod filter;
mod hostinfo;
mod map;
mod node;
mod ping;
mod raw;
mod register;
mod session;
mod ssh;
mod transport;
mod user;

pub use capver::CapabilityVersion;
pub use codec::TEXT_BYTES_MAX;
pub use control::{
    ClientVersion, ControlDialPlan, ControlIpCandidate, Debug, DisplayMessage,
    DisplayMessageAction, DisplayMessageSeverity, TkaInfo,
};
pub use derp::{
    DerpAdmitClientRequest, DerpAdmitClientResponse, DerpHomeParams, DerpMap, DerpNode, DerpRegion,
};
pub use dns::{DnsConfig, DnsRecord, Resolver};
pub use feature::{
    AuditLogRequest, DEVICE_ATTRIBUTES_MAX, HealthChangeRequest, QueryFeatureRequest,
    QueryFeatureResponse, SetDeviceAttributesRequest, SetDnsRequest, TokenRequest, TokenResponse,
};
pub use filter::{CapGrant, FilterRule, NetPortRange, PortRange};
pub use hostinfo::{
    DERP_LATENCY_MAX, Hostinfo, Location, NetInfo, REQUEST_TAGS_MAX, ROUTABLE_IPS_MAX,
    SERVICES_MAX, SSH_HOST_KEYS_MAX, Service, WOL_MACS_MAX,
};
pub use id::{Base64, DerpRegionId, LoginId, NodeId, SecretText, UserId};
pub use map::{
    DEBUG_FLAGS_MAX, ENDPOINTS_MAX, EndpointType, KEEP_ALIVE_JSON, MapRequest, MapResponse,
    is_incremental,
};
pub use node::{CapMap, Node, PeerChange};
pub use ping::{PingRequest, PingResponse};
pub use raw::RawJson;
pub use register::{RegisterAuth, RegisterRequest, RegisterResponse};
pub use session::{RuleBroken, SessionRules};
pub use ssh::{SshAction, SshPolicy, SshPrincipal, SshRecorderFailureAction, SshRule};
pub use transport::{EarlyNoise, OverTlsPublicKeyResponse};
pub use user::{Login, User, UserProfile};

#[cfg(test)]
mod tests;
