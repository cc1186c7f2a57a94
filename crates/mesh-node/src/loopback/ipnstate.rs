//! What the local API answers, in the shapes that scripts for Tailscale's know. Times that are unknown are left out.
//!
//! Source: tailscale `ipn/ipnstate/ipnstate.go`, `client/tailscale/apitype/apitype.go`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use mesh_keys::NodePublic;
use mesh_wire::{CapMap, DerpRegionId, Node, RawJson, UserId, UserProfile};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::value::RawValue;

use crate::NetcheckReport;

/// How far a node has come.
///
/// ```
/// use mesh_node::loopback::BackendState;
///
/// assert_eq!(serde_json::to_string(&BackendState::NeedsLogin)?, r#""NeedsLogin""#);
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// Source: tailscale `ipn/backend.go`, `State`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackendState {
    /// The control server has not answered yet.
    #[default]
    Starting,
    /// Somebody has to log in, or the control server refuses the node.
    NeedsLogin,
    /// Somebody has to approve the machine.
    NeedsMachineAuth,
    /// The node has joined.
    Running,
}

/// A node and its peers.
///
/// ```
/// use mesh_node::loopback::{BackendState, Status};
///
/// let json = r#"{"BackendState": "Running", "TailscaleIPs": ["100.64.0.1"], "Self": {"DNSName": "web.example."}}"#;
/// let status: Status = serde_json::from_str(json)?;
/// assert_eq!(status.backend_state, BackendState::Running);
/// assert_eq!(status.self_node.map(|node| node.dns_name).as_deref(), Some("web.example."));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// Whether the machine has a network interface for the tailnet.
    #[serde(rename = "TUN")]
    pub tun: bool,
    /// How far the node has come.
    pub backend_state: BackendState,
    /// Where somebody has to log in, or empty.
    #[serde(rename = "AuthURL")]
    pub auth_url: String,
    /// The node's addresses.
    #[serde(rename = "TailscaleIPs")]
    pub tailscale_ips: Vec<IpAddr>,
    /// The node itself, once the control server has told it.
    #[serde(rename = "Self")]
    pub self_node: Option<PeerStatus>,
    /// What is wrong, in words.
    pub health: Vec<String>,
    /// What follows the first label of the nodes' names.
    #[serde(rename = "MagicDNSSuffix")]
    pub magic_dns_suffix: String,
    /// The tailnet, once the control server has told it.
    pub current_tailnet: Option<TailnetStatus>,
    /// The peers.
    pub peer: BTreeMap<NodePublic, PeerStatus>,
    /// Who owns them.
    pub user: BTreeMap<UserId, UserProfile>,
}

/// A tailnet.
///
/// ```
/// use mesh_node::loopback::Status;
///
/// let json = r#"{"CurrentTailnet": {"Name": "example.com", "MagicDNSSuffix": "example.ts.net"}}"#;
/// let status: Status = serde_json::from_str(json)?;
/// assert_eq!(status.current_tailnet.map(|tailnet| tailnet.name).as_deref(), Some("example.com"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TailnetStatus {
    /// Its name.
    pub name: String,
    /// What follows the first label of the nodes' names.
    #[serde(rename = "MagicDNSSuffix")]
    pub magic_dns_suffix: String,
}

/// A node.
///
/// ```
/// use mesh_node::loopback::PeerStatus;
///
/// let peer: PeerStatus = serde_json::from_str(r#"{"CurAddr": "", "Relay": "fra", "Online": true}"#)?;
/// let is_relayed = peer.cur_addr.is_empty() && !peer.relay.is_empty();
/// assert!(peer.online && is_relayed);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PeerStatus {
    /// What preferences name it by.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its key.
    pub public_key: NodePublic,
    /// What its machine calls itself.
    pub host_name: String,
    /// Its full name with the trailing dot.
    #[serde(rename = "DNSName")]
    pub dns_name: String,
    /// Its operating system.
    #[serde(rename = "OS")]
    pub os: String,
    /// Its owner.
    #[serde(rename = "UserID")]
    pub user_id: UserId,
    /// Its addresses.
    #[serde(rename = "TailscaleIPs")]
    pub tailscale_ips: Vec<IpAddr>,
    /// What may be routed to it.
    #[serde(rename = "AllowedIPs")]
    pub allowed_ips: Vec<IpNet>,
    /// Its tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The routes that it serves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub primary_routes: Vec<IpNet>,
    /// Where it is reached directly, or empty.
    pub cur_addr: String,
    /// The code of the region through which it is reached, or else of its home.
    pub relay: String,
    /// Bytes that came from it.
    pub rx_bytes: u64,
    /// Bytes that were sent to it.
    pub tx_bytes: u64,
    /// When it was registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// When it was last connected, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// When a tunnel to it was last agreed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handshake: Option<Timestamp>,
    /// Whether the control server sees it.
    pub online: bool,
    /// Whether it offers to be an exit node.
    pub exit_node_option: bool,
    /// Whether data was sent to it a short while ago.
    pub active: bool,
    /// Whether it is in the netmap, as all are that are told of.
    pub in_network_map: bool,
    /// Whether its key has expired.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
    /// When its key expires, if ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_expiry: Option<Timestamp>,
}

impl PeerStatus {
    /// What the control server tells of a node.
    pub(super) fn new(node: &Node) -> Self {
        let hostinfo = node.hostinfo.as_deref();
        let allowed_ips = node.allowed_ips.clone().unwrap_or_else(|| node.addresses.clone());
        Self {
            id: node.stable_id.clone(),
            public_key: node.key,
            host_name: hostinfo.map(|hostinfo| hostinfo.hostname.clone()).unwrap_or_default(),
            dns_name: node.name.clone(),
            os: hostinfo.map(|hostinfo| hostinfo.os.clone()).unwrap_or_default(),
            user_id: node.user,
            tailscale_ips: node.addresses.iter().map(IpNet::addr).collect(),
            exit_node_option: allowed_ips.iter().any(|route| route.prefix_len() == 0),
            allowed_ips,
            tags: node.tags.clone(),
            primary_routes: node.primary_routes.clone(),
            created: node.created,
            last_seen: node.last_seen,
            online: node.online.unwrap_or_default(),
            in_network_map: true,
            expired: node.expired,
            key_expiry: node.key_expiry,
            ..Self::default()
        }
    }
}

/// What came of a ping.
///
/// ```
/// use mesh_node::loopback::PingResult;
///
/// let result: PingResult = serde_json::from_str(r#"{"LatencySeconds": 0.0125, "Endpoint": "192.0.2.1:41641"}"#)?;
/// assert!(result.err.is_empty() && result.latency_seconds < 0.1);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PingResult {
    /// Who was to be pinged.
    #[serde(rename = "IP")]
    pub ip: String,
    /// The address of the node that has or routes it.
    #[serde(rename = "NodeIP")]
    pub node_ip: String,
    /// The name of that node.
    pub node_name: String,
    /// What went wrong, or empty.
    pub err: String,
    /// Round trip in seconds.
    pub latency_seconds: f64,
    /// Where the answer came from, if directly; else empty.
    pub endpoint: String,
    /// The region that relayed, or 0.
    #[serde(rename = "DERPRegionID")]
    pub derp_region_id: DerpRegionId,
    /// Its code.
    #[serde(rename = "DERPRegionCode")]
    pub derp_region_code: String,
    /// Whether the address is the node's own.
    #[serde(rename = "IsLocalIP", skip_serializing_if = "std::ops::Not::not")]
    pub is_local_ip: bool,
}

/// What the network around a node is like.
///
/// ```
/// use mesh_node::loopback::Netcheck;
///
/// let report: Netcheck = serde_json::from_str(r#"{"UDP": true, "RegionLatency": {"1": 12500000}}"#)?;
/// assert!(report.udp && report.region_latency.len() == 1);
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// Source: tailscale `net/netcheck/netcheck.go`, `Report`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Netcheck {
    /// Whether anything was heard by UDP.
    #[serde(rename = "UDP")]
    pub udp: bool,
    /// As which IPv4 address others see the node.
    pub global_v4: Option<SocketAddr>,
    /// As which IPv6 address others see the node.
    pub global_v6: Option<SocketAddr>,
    /// The home region, or 0.
    #[serde(rename = "PreferredDERP")]
    pub preferred_derp: DerpRegionId,
    /// The round trips to the regions that have answered, in nanoseconds.
    pub region_latency: BTreeMap<DerpRegionId, u64>,
    /// Where peers are told to reach the node.
    pub endpoints: Vec<SocketAddr>,
    /// Whether the gateway speaks NAT-PMP, if it was asked.
    #[serde(rename = "PMP")]
    pub pmp: Option<bool>,
    /// Whether the gateway speaks PCP, if it was asked.
    #[serde(rename = "PCP")]
    pub pcp: Option<bool>,
    /// Where the gateway lets others reach the node. Tailscale tells it among the endpoints alone.
    pub port_mapped: Option<SocketAddr>,
}

impl Netcheck {
    pub(super) fn new(report: &NetcheckReport) -> Self {
        let seen_as = |v6: bool| report.seen_as.iter().find(|ip| ip.is_ipv6() == v6).copied();
        let nanos = |span: &Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let latencies = report.latencies.iter();
        Self {
            udp: !report.latencies.is_empty(),
            global_v4: seen_as(false),
            global_v6: seen_as(true),
            preferred_derp: report.home.unwrap_or_default(),
            region_latency: latencies.map(|(region, span)| (*region, nanos(span))).collect(),
            endpoints: report.endpoints.clone(),
            pmp: report.port_mapping.map(|services| services.nat_pmp),
            pcp: report.port_mapping.map(|services| services.pcp),
            port_mapped: report.port_mapped,
        }
    }
}

/// Who has an address.
///
/// ```
/// use mesh_node::loopback::WhoIsResponse;
///
/// let json = r#"{"UserProfile": {"ID": 1, "LoginName": "alice@example.com"}, "CapMap": {"example.com/cap/edit": null}}"#;
/// let who: WhoIsResponse = serde_json::from_str(json)?;
/// assert_eq!(who.user_profile.login_name, "alice@example.com");
/// assert!(who.cap_map.contains_key("example.com/cap/edit"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WhoIsResponse {
    /// The node.
    pub node: Node,
    /// Its owner; of tagged nodes a stand-in.
    pub user_profile: UserProfile,
    /// The application capabilities that policy gives it towards this node.
    #[serde(deserialize_with = "read_cap_map")]
    pub cap_map: CapMap,
}

fn read_cap_map<'de, D: Deserializer<'de>>(from: D) -> Result<CapMap, D::Error> {
    let raw = BTreeMap::<String, Option<Vec<Box<RawValue>>>>::deserialize(from)?;
    let parse = |value: Box<RawValue>| RawJson::parse(value.get()).map_err(de::Error::custom);
    let parse_all = |values: Option<Vec<_>>| {
        values.map(|values| values.into_iter().map(parse).collect()).transpose()
    };
    raw.into_iter().map(|(name, values)| Ok((name, parse_all(values)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_the_fields_that_scripts_look_for_and_is_read_back() {
        let node = Node {
            name: "web.example.".to_owned(),
            addresses: vec!["100.64.0.1/32".parse().unwrap()],
            allowed_ips: Some(vec!["100.64.0.1/32".parse().unwrap(), "0.0.0.0/0".parse().unwrap()]),
            online: Some(true),
            ..Node::default()
        };
        let peer = PeerStatus::new(&node);
        assert!(peer.exit_node_option);
        let status = Status {
            backend_state: BackendState::Running,
            peer: [(NodePublic::from_bytes([7; 32]), peer)].into(),
            user: [(UserId(3), UserProfile::default())].into(),
            ..Status::default()
        };
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["BackendState"], "Running");
        let key = NodePublic::from_bytes([7; 32]).to_string();
        assert_eq!(json["Peer"][&key]["DNSName"], "web.example.");
        assert_eq!(json["Peer"][&key]["TailscaleIPs"][0], "100.64.0.1");
        assert_eq!(json["User"]["3"]["LoginName"], "");
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
    }

    #[test]
    fn capabilities_pass_as_they_were_granted() {
        let granted = RawJson::parse(r#"{"z": 1.50, "a": null}"#).unwrap();
        let cap_map =
            CapMap::from([("app".to_owned(), Some(vec![granted])), ("flag".to_owned(), None)]);
        let told = WhoIsResponse { cap_map, ..WhoIsResponse::default() };
        let json = serde_json::to_string(&told).unwrap();
        assert!(
            json.contains(r#""CapMap":{"app":[{"z": 1.50, "a": null}],"flag":null}"#),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<WhoIsResponse>(&json).unwrap(), told);
    }
}
