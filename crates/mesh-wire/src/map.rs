//! `POST /machine/map`: what a node sends, and the messages of its map stream.
//!
//! Source: tailscale `tailcfg/tailcfg.go`, `MapRequest`, `MapResponse`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use mesh_keys::{DiscoPublic, NodePublic};
use serde::{Deserialize, Serialize};

use crate::codec::{leaf, wire_struct};
use crate::{
    CapabilityVersion, ClientVersion, ControlDialPlan, Debug, DerpMap, DisplayMessage, DnsConfig,
    FilterRule, Hostinfo, Node, NodeId, PeerChange, PingRequest, SshPolicy, TkaInfo, UserProfile,
};

/// Most endpoints of one node. Clients have one per interface and NAT mapping.
pub const ENDPOINTS_MAX: usize = 256;
/// Most debug flags in one request.
pub const DEBUG_FLAGS_MAX: usize = 64;

/// The keep-alive. Clients compare these very bytes and skip decoding, so every one of them is the same.
pub const KEEP_ALIVE_JSON: &str = r#"{"KeepAlive":true}"#;

wire_struct! {
    /// A node opens its map stream, or tells what changed about it.
    ///
    /// Hardware attestation and session handles are not read.
    pub struct MapRequest {
        /// What the client understands.
        pub version: CapabilityVersion = "Version" (always);
        /// `zstd` or empty for none.
        pub compress: String = "Compress";
        /// Whether to send keep-alives.
        pub keep_alive: bool = "KeepAlive";
        /// Who asks.
        pub node_key: NodePublic = "NodeKey" (always);
        /// Its disco key.
        pub disco_key: DiscoPublic = "DiscoKey" (always);
        /// Whether to keep sending. Such a request changes nothing about the node.
        pub stream: bool = "Stream";
        /// What the node says of itself.
        pub hostinfo: Option<Box<Hostinfo>> = "Hostinfo";
        /// Where the node can be reached; those that do not parse are passed over.
        pub endpoints: Vec<SocketAddr> = "Endpoints" (max ENDPOINTS_MAX);
        /// How it knows; see [`MapRequest::typed_endpoints`].
        pub endpoint_types: Vec<EndpointType> = "EndpointTypes" (max ENDPOINTS_MAX);
        /// Hash of the newest tailnet-lock update that the node has.
        pub tka_head: String = "TKAHead";
        /// Whether the request changes nothing about the node, even without `stream`.
        pub read_only: bool = "ReadOnly";
        /// Whether to leave out peers: a lite update, answered with an empty body.
        pub omit_peers: bool = "OmitPeers";
        /// Oddities of the client's system.
        pub debug_flags: Vec<String> = "DebugFlags" (max DEBUG_FLAGS_MAX);
    }
}

impl MapRequest {
    /// `endpoints` with their kinds; all unknown if the two lists do not pair up.
    pub fn typed_endpoints(&self) -> impl Iterator<Item = (SocketAddr, EndpointType)> + '_ {
        let paired = self.endpoints.len() == self.endpoint_types.len();
        self.endpoints.iter().enumerate().map(move |(position, endpoint)| {
            let kind = if paired { self.endpoint_types[position] } else { EndpointType::UNKNOWN };
            (*endpoint, kind)
        })
    }
}

/// How a node came to know one of its endpoints. Numbers without a name here are kept.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct EndpointType(pub i32);

impl EndpointType {
    /// It does not say.
    pub const UNKNOWN: Self = Self(0);
    /// Address of an interface.
    pub const LOCAL: Self = Self(1);
    /// Seen by a STUN server.
    pub const STUN: Self = Self(2);
    /// Mapped by the router.
    pub const PORTMAPPED: Self = Self(3);
    /// Seen by a STUN server, with the local port instead: a guess for hard NATs.
    pub const STUN_4_LOCAL_PORT: Self = Self(4);
    /// Configured by hand.
    pub const EXPLICIT_CONF: Self = Self(5);
}

leaf! { EndpointType, |kind| kind.0 == 0; }

wire_struct! {
    /// One message of a map stream. What is absent stays as it was in the session.
    ///
    /// The first message of a session must hold [`Node`]; [`crate::SessionRules`] tells what else must hold.
    pub struct MapResponse {
        /// Nothing but a sign of life; of the rest the client then reads only pings, URLs, versions, time, dial plan.
        pub keep_alive: bool = "KeepAlive";
        /// A question to the node.
        pub ping_request: Option<PingRequest> = "PingRequest";
        /// A page to open, once per distinct URL.
        pub pop_browser_url: String = "PopBrowserURL";
        /// The node itself, whole.
        pub node: Option<Box<Node>> = "Node";
        /// The relays.
        pub derp_map: Option<Arc<DerpMap>> = "DERPMap";
        /// All peers by ascending id; the lists below are then ignored. Left out when empty: to the Rust client an
        /// empty list is "no peers", to Go's it is "no change".
        pub peers: Vec<Node> = "Peers";
        /// Peers that came or changed, whole.
        pub peers_changed: Vec<Node> = "PeersChanged";
        /// Peers that went; applied first.
        pub peers_removed: Vec<NodeId> = "PeersRemoved";
        /// Fields of peers that changed; applied last.
        pub peers_changed_patch: Vec<PeerChange> = "PeersChangedPatch";
        /// Peers that were last seen at this moment, or never.
        pub peer_seen_change: BTreeMap<NodeId, bool> = "PeerSeenChange";
        /// Peers that came online or went offline.
        pub online_change: BTreeMap<NodeId, bool> = "OnlineChange";
        /// DNS, whole.
        pub dns_config: Option<DnsConfig> = "DNSConfig";
        /// Name of the tailnet.
        pub domain: String = "Domain";
        /// Whether the node shall report its listening ports.
        pub collect_services: Option<bool> = "CollectServices";
        /// Replaces the filter named `base`; an empty list denies.
        pub packet_filter: Option<Vec<FilterRule>> = "PacketFilter";
        /// Filters by name: `None` deletes one (all of them under `*`), an empty list has no rules.
        pub packet_filters: BTreeMap<String, Option<Vec<FilterRule>>> = "PacketFilters";
        /// Profiles, added to those known.
        pub user_profiles: Vec<UserProfile> = "UserProfiles";
        /// What ails the node, for clients without `display_messages`; an empty list is well again.
        pub health: Option<Vec<String>> = "Health";
        /// Messages by id: `None` takes one back (all of them under `*`).
        pub display_messages: BTreeMap<String, Option<DisplayMessage>> = "DisplayMessages";
        /// SSH rules, whole.
        pub ssh_policy: Option<SshPolicy> = "SSHPolicy";
        /// The server's time.
        pub control_time: Option<Timestamp> = "ControlTime";
        /// State of tailnet lock.
        pub tka_info: Option<TkaInfo> = "TKAInfo";
        /// Id of the tailnet in audit logs of its traffic.
        pub domain_data_plane_audit_log_id: String = "DomainDataPlaneAuditLogID";
        /// Orders to the client.
        pub debug: Option<Debug> = "Debug";
        /// Where to dial the server next time.
        pub control_dial_plan: Option<ControlDialPlan> = "ControlDialPlan";
        /// Newer versions of the client.
        pub client_version: Option<ClientVersion> = "ClientVersion";
        /// Deprecated; node attribute `default-auto-update` took its place.
        pub default_auto_update: Option<bool> = "DefaultAutoUpdate";
    }
}

impl MapResponse {
    /// The keep-alive; its JSON is [`KEEP_ALIVE_JSON`].
    pub fn keep_alive() -> Self {
        Self { keep_alive: true, ..Self::default() }
    }

    /// Whether the message holds a field that makes every client rebuild its netmap.
    ///
    /// Source: tailscale `types/netmap/nodemut.go`, `mapResponseContainsNonPatchFields`.
    pub fn has_config(&self) -> bool {
        self.node.is_some()
            || self.derp_map.is_some()
            || self.dns_config.is_some()
            || !self.domain.is_empty()
            || self.collect_services.is_some()
            || self.health.is_some()
            || !self.display_messages.is_empty()
            || self.ssh_policy.is_some()
            || self.tka_info.is_some()
            || !self.domain_data_plane_audit_log_id.is_empty()
            || self.debug.is_some()
            || self.control_dial_plan.is_some()
            || self.client_version.is_some()
            || !self.peers.is_empty()
            || self.default_auto_update.is_some()
    }

    /// Whether the message changes single peers.
    pub fn has_peer_deltas(&self) -> bool {
        !self.peers_changed.is_empty()
            || !self.peers_removed.is_empty()
            || !self.peers_changed_patch.is_empty()
            || !self.peer_seen_change.is_empty()
            || !self.online_change.is_empty()
    }
}

/// Whether a client from [`CapabilityVersion::INCREMENTAL_PEERS`] on applies the message in place, at a cost that
/// depends on the message alone and not on the size of its netmap.
///
/// A changed peer that differs from the client's copy only in patchable fields is the exception that cannot be seen
/// from the message: the client turns it into a patch, and one that is not fast rebuilds.
///
/// Source: tailscale `types/netmap/nodemut.go`, `MutationsFromMapResponse`.
pub fn is_incremental(message: &MapResponse) -> bool {
    !message.has_config() && message.peers_changed_patch.iter().all(PeerChange::is_fast)
}

#[cfg(test)]
mod tests;
