//! What a client says about the machine it runs on, as far as the server or its peers use it.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The part of a client's host information that is kept: what peers are told and what the server decides by.
///
/// Stored as JSON; absent fields are their defaults, so that old rows read well.
/// Source: tailscale `tailcfg.Hostinfo`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hostinfo {
    /// The name the machine gives itself: free text.
    pub hostname: String,
    /// Operating system, as Go names it: `linux`, `windows`, `macOS`.
    pub os: String,
    /// Version of the operating system.
    pub os_version: String,
    /// Version of the client.
    pub ipn_version: String,
    /// The program a tsnet client runs in.
    pub app: String,
    /// Phone or appliance model.
    pub device_model: String,
    /// Services that peers reach on the node itself, such as its peer API.
    pub services: Vec<Service>,
    /// Routes the node offers to carry, sorted.
    pub routable_ips: Vec<IpNet>,
    /// Tags the node asks for.
    pub request_tags: Vec<String>,
    /// Public host keys of the node's SSH server; non-empty while it runs one.
    pub ssh_host_keys: Vec<String>,
    /// Where an exit node stands.
    pub location: Option<Location>,
    /// Whether the node was shared in for a peer's sake only.
    pub sharee_node: bool,
    /// Whether the node runs an app connector.
    pub app_connector: Option<bool>,
    /// Whether the node relays for its peers.
    pub peer_relay: bool,
    /// Whether the node refuses connections from peers.
    pub shields_up: bool,
}

/// A service a node announces.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// `tcp`, `udp`, `peerapi4`, `peerapi6`, `peerapi-dns-proxy`.
    pub proto: String,
    /// Port number.
    pub port: u16,
    /// Free text, often the program's name.
    pub description: String,
}

/// Where an exit node stands.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Location {
    /// Country in the user's language.
    pub country: String,
    /// ISO 3166-1 alpha-2.
    pub country_code: String,
    /// City in the user's language.
    pub city: String,
    /// Short code of the city.
    pub city_code: String,
    /// Degrees north.
    pub latitude: f64,
    /// Degrees east.
    pub longitude: f64,
    /// Preference among exit nodes of a place: higher is better.
    pub priority: i64,
}
