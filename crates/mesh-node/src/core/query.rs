//! What programs may know of a node: whose an address is, what a name means, how things are.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_peers::{Peer, PeerIndex};
use mesh_portmap::Services;
use mesh_wire::{DerpMap, DerpRegionId, UserProfile};

use super::Core;
use super::tunnel::WireGuard;
use crate::host::is_of_tailnet;
use crate::node::{PeerStatus, Status, WhoIs};

/// What the network around a node is like.
///
/// ```
/// use mesh_node::NetcheckReport;
///
/// fn told(report: &NetcheckReport) {
///     for (region, round_trip) in &report.latencies {
///         let home = if report.home == Some(*region) { "  (home)" } else { "" };
///         println!("{region:>4} {round_trip:>8.1?}{home}");
///     }
///     println!("seen as {:?}, reached at {:?}", report.seen_as, report.endpoints);
/// }
/// told(&NetcheckReport::default());
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NetcheckReport {
    /// The relays that the control server has told.
    pub derp_map: Option<Arc<DerpMap>>,
    /// The home region.
    pub home: Option<DerpRegionId>,
    /// The round trips to the regions that have answered, by the family that was quicker.
    pub latencies: BTreeMap<DerpRegionId, Duration>,
    /// As which addresses others see the node: at most one of each family.
    pub seen_as: Vec<SocketAddr>,
    /// Where peers are told to reach it.
    pub endpoints: Vec<SocketAddr>,
    /// Where the gateway lets others reach it, if it does.
    pub port_mapped: Option<SocketAddr>,
    /// By what the gateway lets itself be asked for that; `None` if it is not known, or was not asked.
    pub port_mapping: Option<Services>,
}

impl<T: WireGuard> Core<T> {
    /// Who has an address, or routes it.
    pub(crate) fn who_is(&self, address: IpAddr) -> Option<WhoIs> {
        let peer = self.peers.get(self.peers.by_address(address.to_canonical())?)?;
        let own = self.gate.addresses.iter().find(|own| own.is_ipv4() == address.is_ipv4());
        let has_capability = |_: IpAddr, name: &str| peer.cap_map.contains_key(name);
        let cap_map = own
            .map(|own| self.gate.filter.capabilities(address, *own, has_capability))
            .unwrap_or_default();
        Some(WhoIs { node: peer.to_node(), user_profile: self.profile_of(peer), cap_map })
    }

    fn profile_of(&self, peer: &Peer) -> Option<UserProfile> {
        self.netmap.user_profiles.get(&peer.user).cloned()
    }

    /// Whether an address is to be reached through the tailnet. With an exit node all are, also while that is not there: what
    /// was to go through it must not go around it.
    pub(crate) fn has_route(&self, address: IpAddr) -> bool {
        self.gate.addresses.contains(&address)
            || self.route_to(address).is_some()
            || self.gate.uses_exit_node() && !is_of_tailnet(address)
    }

    /// The addresses of a node by its full name, or by the first label of a name in the own tailnet.
    pub(crate) fn resolve(&self, name: &str) -> Vec<IpAddr> {
        let Some(own) = &self.netmap.node else { return Vec::new() };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let suffix = own.name.split_once('.').map_or("", |(_, suffix)| suffix);
        let full = if name.contains('.') { format!("{name}.") } else { format!("{name}.{suffix}") };
        let addresses = if full == own.name {
            Some(&own.addresses[..])
        } else {
            let peer = self.peers.by_name(&full).and_then(|index| self.peers.get(index));
            peer.map(|peer| &peer.addresses[..])
        };
        let found: Vec<IpAddr> =
            addresses.unwrap_or_default().iter().map(ipnet::IpNet::addr).collect();
        if found.is_empty() { self.extra_records(&name) } else { found }
    }

    fn extra_records(&self, name: &str) -> Vec<IpAddr> {
        let records = self.netmap.dns_config.iter().flat_map(|dns| &dns.extra_records);
        let of_name = records.filter(|record| record.name.trim_end_matches('.') == name);
        of_name.filter_map(|record| record.value.parse().ok()).collect()
    }

    /// What there is to tell.
    pub(crate) fn status(&self, now: Instant) -> Status {
        let mut peers: Vec<PeerStatus> =
            self.peers.iter().map(|(index, peer)| self.peer_status(index, peer, now)).collect();
        peers.sort_by(|one, other| one.node.name.cmp(&other.node.name));
        Status {
            node: self.netmap.node.as_deref().cloned(),
            tailnet: self.netmap.domain.clone(),
            home: self.connected_home,
            users: self.netmap.user_profiles.iter().map(|(id, user)| (*id, user.clone())).collect(),
            peers,
        }
    }

    /// What the network around the node is like.
    pub(crate) fn netcheck(&self) -> NetcheckReport {
        NetcheckReport {
            derp_map: self.netmap.derp_map.clone(),
            home: self.home,
            latencies: self.netcheck.nearest(),
            seen_as: self.netcheck.seen_as().collect(),
            endpoints: self.report.endpoints.iter().map(|(address, _)| *address).collect(),
            port_mapped: self.port_mapped.endpoint,
            port_mapping: self.port_mapped.services,
        }
    }

    fn peer_status(&self, index: PeerIndex, peer: &Peer, now: Instant) -> PeerStatus {
        let path = self.ways.status(index, now).unwrap_or_default();
        let (rx_bytes, tx_bytes) = self.ways.traffic(index);
        PeerStatus {
            node: peer.to_node(),
            is_active: path.is_active,
            direct: path.route.udp.filter(|_| path.route.relay.is_none()),
            relay: path.route.relay,
            latency: path.latency,
            last_handshake: self.tunnels.since_handshake(&peer.key),
            rx_bytes,
            tx_bytes,
        }
    }
}
