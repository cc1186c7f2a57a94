//! What a node tells of itself and its peers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_wire::{CapMap, DerpRegionId, UserId, UserProfile};

/// Who has an address.
///
/// ```
/// use mesh_node::WhoIs;
///
/// fn may_edit(who: &WhoIs) -> bool {
///     who.cap_map.contains_key("example.com/cap/editor") || who.node.tags.contains(&"tag:admin".to_owned())
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct WhoIs {
    /// The node, as the control server tells it.
    pub node: mesh_wire::Node,
    /// Its owner; of tagged nodes a stand-in.
    pub user_profile: Option<UserProfile>,
    /// The application capabilities that policy gives it towards this node.
    pub cap_map: CapMap,
}

/// What there is to tell of a node and its peers.
///
/// ```
/// use mesh_node::Status;
///
/// fn sent(status: &Status) -> u64 {
///     status.peers.iter().map(|peer| peer.tx_bytes).sum()
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The node itself; `None` before the control server has told it, and after a logout.
    pub node: Option<mesh_wire::Node>,
    /// The name of the tailnet.
    pub tailnet: String,
    /// The home region, once its relay has let the node in.
    pub home: Option<DerpRegionId>,
    /// The owners of the node and its peers.
    pub users: BTreeMap<UserId, UserProfile>,
    /// The peers by name.
    pub peers: Vec<PeerStatus>,
}

/// What there is to tell of a peer.
///
/// ```
/// use mesh_node::PeerStatus;
///
/// fn way(peer: &PeerStatus) -> String {
///     match (peer.direct, peer.relay) {
///         (Some(address), _) => format!("directly at {address}"),
///         (None, Some(region)) => format!("through relay {region}"),
///         (None, None) => "not spoken to".to_owned(),
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PeerStatus {
    /// The peer, as the control server tells it.
    pub node: mesh_wire::Node,
    /// Whether data was sent to it a short while ago.
    pub is_active: bool,
    /// Where it is reached, if directly and surely.
    pub direct: Option<SocketAddr>,
    /// The relay's region through which data goes, if any does.
    pub relay: Option<DerpRegionId>,
    /// The round trip of the direct way.
    pub latency: Option<Duration>,
    /// How long ago the last handshake was.
    pub last_handshake: Option<Duration>,
    /// Bytes that came from it, as datagrams of its tunnel.
    pub rx_bytes: u64,
    /// Bytes that were sent to it, as datagrams of its tunnel.
    pub tx_bytes: u64,
}
