//! Which servers tell a node as which address it is seen: the relays' own, by name or address.

use std::net::{IpAddr, SocketAddr};

use mesh_wire::{DerpMap, DerpNode, DerpRegionId};
use tokio::net::lookup_host;

/// The port of STUN where a map names none.
const STUN_PORT: u16 = 3478;

/// The STUN servers of a map: of each region the first node that has one.
pub(crate) async fn stun_servers(map: &DerpMap) -> Vec<(DerpRegionId, SocketAddr)> {
    let mut targets = Vec::new();
    for (id, region) in map.regions.iter().flatten() {
        let Some(node) = region.nodes.iter().find(|node| node.stun_port != -1) else { continue };
        targets.extend(addresses(node).await.into_iter().map(|address| (*id, address)));
    }
    targets
}

/// Where a node answers STUN: at most one address of each family.
async fn addresses(node: &DerpNode) -> Vec<SocketAddr> {
    let port = u16::try_from(node.stun_port).ok().filter(|port| *port != 0).unwrap_or(STUN_PORT);
    let named: Vec<IpAddr> = if node.stun_test_ip.is_empty() {
        [&node.ipv4, &node.ipv6].into_iter().filter_map(|text| text.parse().ok()).collect()
    } else {
        node.stun_test_ip.parse().into_iter().collect()
    };
    let found: Vec<IpAddr> = if named.is_empty() {
        let looked_up = lookup_host((node.host_name.as_str(), port)).await;
        looked_up.into_iter().flatten().map(|address| address.ip()).collect()
    } else {
        named
    };
    let is_used = |v6: bool| if v6 { node.ipv6 != "none" } else { node.ipv4 != "none" };
    let first = |v6: bool| found.iter().find(|ip| ip.is_ipv6() == v6 && is_used(v6));
    [first(false), first(true)].into_iter().flatten().map(|ip| SocketAddr::new(*ip, port)).collect()
}
