//! What a client says of itself and of those it sees, as the drivers report it.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The answer to `status`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// `NeedsLogin`, `Starting`, `Running`, ...
    pub state: String,
    /// Where its user should log in, while that is wanted.
    pub auth_url: Option<String>,
    /// What `tailscale up` would end with.
    pub error: Option<String>,
    /// Whether it uploads no logs.
    #[serde(default)]
    pub logs_disabled: bool,
    /// The node itself.
    #[serde(rename = "self")]
    pub own: Option<Peer>,
    /// Whom it sees.
    #[serde(default)]
    pub peers: Vec<Peer>,
}

/// A node as a client sees it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Peer {
    /// `nodekey:...`
    pub key: String,
    /// Full name without the trailing dot.
    pub name: String,
    /// Addresses in the tailnet, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Login name of its user.
    pub user: Option<String>,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Whether the server says it is connected.
    #[serde(default)]
    pub online: bool,
    /// Whether the server says its key is expired.
    #[serde(default)]
    pub expired: bool,
    /// Code of its home relay's region.
    #[serde(default)]
    pub relay: String,
    /// UDP address over which it is reached at the moment; empty when relayed or idle.
    #[serde(default)]
    pub cur_addr: String,
    /// Subnet routes that it is the router of.
    #[serde(default)]
    pub primary_routes: Vec<String>,
    /// Whether it may be used as an exit node.
    #[serde(default)]
    pub exit_node_option: bool,
    /// Bytes of packets sent to it.
    #[serde(default)]
    pub tx_bytes: u64,
    /// Node capabilities, each with its values or `null`. Of the node itself only.
    #[serde(default)]
    pub cap_map: Map<String, Value>,
}

impl Status {
    /// The peer whose first label is `name`.
    pub fn peer(&self, name: &str) -> Result<&Peer> {
        self.peers.iter().find(|peer| peer.label() == name).with_context(|| {
            let labels: Vec<&str> = self.peers.iter().map(Peer::label).collect();
            format!("no peer {name}, only {labels:?}")
        })
    }

    /// The node itself, once it is in a tailnet.
    pub fn own(&self) -> Result<&Peer> {
        self.own
            .as_ref()
            .filter(|own| !own.addresses.is_empty())
            .with_context(|| format!("in no tailnet: state {}, error {:?}", self.state, self.error))
    }
}

impl Peer {
    /// The first label of its name.
    pub fn label(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// Its IPv4 address.
    pub fn ipv4(&self) -> Result<IpAddr> {
        let found = self.addresses.iter().copied().find(IpAddr::is_ipv4);
        found.with_context(|| format!("{} has no IPv4 address", self.name))
    }

    /// A port of its IPv4 address.
    pub fn port(&self, port: u16) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.ipv4()?, port))
    }

    /// Fails until packets can be sent to it: before its relay is known they would be dropped.
    pub fn check_reachable(&self) -> Result<()> {
        ensure!(self.online, "{} is offline", self.name);
        ensure!(!self.relay.is_empty(), "{} has no home relay", self.name);
        Ok(())
    }
}
