//! The synthetic tailnet: the same peers, and the same first map around them, as in Tailscale's benchmark.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::Result;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use mesh_keys::{DiscoPublic, KEY_BYTES, MachinePublic, NodePublic};
use mesh_wire::{
    DerpMap, DnsConfig, FilterRule, Hostinfo, MapRequest, MapResponse, NetPortRange, Node, NodeId,
    PortRange, UserId, UserProfile,
};

/// Whom all nodes belong to.
pub(crate) const OWNER: UserId = UserId(1_000_000);

const DOMAIN: &str = "largetailnet.ts.net";

/// The node under test.
const SELF: u32 = 1;

/// The first map for the node that asks: all of the tailnet, with peers of the ids after the node's own.
pub(crate) fn first_map(
    peers: u32,
    request: &MapRequest,
    derp_map: &Arc<DerpMap>,
    now: Timestamp,
) -> Result<MapResponse> {
    let addresses = addresses(SELF);
    let node = Node {
        id: NodeId(SELF.into()),
        stable_id: "largetailnet-self".to_owned(),
        name: format!("self.{DOMAIN}."),
        user: OWNER,
        key: request.node_key,
        key_expiry: Some(now + SignedDuration::from_hours(24)),
        machine: MachinePublic::from_bytes(random_key()?),
        disco_key: request.disco_key,
        machine_authorized: true,
        allowed_ips: Some(addresses.clone()),
        addresses,
        ..Node::default()
    };
    let all = NetPortRange { ip: "*".into(), ports: PortRange::ANY };
    let accept_all =
        FilterRule { src_ips: ["*".into()].into(), dst_ports: vec![all], ..FilterRule::default() };
    let owner = UserProfile {
        id: OWNER,
        login_name: "largetailnet@example.com".to_owned(),
        display_name: "largetailnet".to_owned(),
        ..UserProfile::default()
    };
    Ok(MapResponse {
        node: Some(Box::new(node)),
        derp_map: Some(Arc::clone(derp_map)),
        peers: (0..peers).map(|number| peer(first_added(number))).collect::<Result<_>>()?,
        dns_config: Some(DnsConfig::default()),
        domain: DOMAIN.to_owned(),
        packet_filter: Some(vec![accept_all]),
        user_profiles: vec![owner],
        control_time: Some(now),
        ..MapResponse::default()
    })
}

/// The id of the first peer that comes to a tailnet of so many.
pub(crate) fn first_added(peers: u32) -> u32 {
    SELF + 1 + peers
}

/// A step: this peer comes, and the one that came in the step before goes.
pub(crate) fn step(id: u32, peers: u32) -> Result<MapResponse> {
    let before = (id > first_added(peers)).then(|| NodeId((id - 1).into()));
    Ok(MapResponse {
        peers_changed: vec![peer(id)?],
        peers_removed: before.into_iter().collect(),
        ..MapResponse::default()
    })
}

/// A peer of an id. Its keys are nothing but random: nobody computes with them.
fn peer(id: u32) -> Result<Node> {
    let (name, addresses) = (format!("peer-{id}"), addresses(id));
    Ok(Node {
        id: NodeId(id.into()),
        name: format!("{name}.{DOMAIN}."),
        stable_id: name.clone(),
        user: OWNER,
        key: NodePublic::from_bytes(random_key()?),
        disco_key: DiscoPublic::from_bytes(random_key()?),
        machine: MachinePublic::from_bytes(random_key()?),
        machine_authorized: true,
        allowed_ips: Some(addresses.clone()),
        addresses,
        hostinfo: Some(Arc::new(Hostinfo { hostname: name, ..Hostinfo::default() })),
        ..Node::default()
    })
}

fn addresses(id: u32) -> Vec<IpNet> {
    let v6 =
        Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0).to_bits() | u128::from(id & 0xff_ffff);
    vec![address(id).into(), IpAddr::from(Ipv6Addr::from_bits(v6)).into()]
}

/// The IPv4 address of the node of an id.
pub(crate) fn address(id: u32) -> IpAddr {
    let [_, a, b, c] = id.to_be_bytes();
    Ipv4Addr::new(100, a.wrapping_add(100), b, c).into()
}

fn random_key() -> Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_adds_a_peer_and_removes_the_one_of_the_step_before() {
        let [first, second] = [1_002, 1_003].map(|id| step(id, 1_000).unwrap());
        assert_eq!(first.peers_changed[0].id, NodeId(1_002));
        assert!(first.peers_removed.is_empty(), "peers of the first map stay");
        assert_eq!(second.peers_changed[0].id, NodeId(1_003));
        assert_eq!(second.peers_removed, [NodeId(1_002)]);
    }

    #[test]
    fn addresses_are_those_of_tailscales_benchmark() {
        let addresses = addresses(0x0001_0203).into_iter().map(|prefix| prefix.to_string());
        assert_eq!(addresses.collect::<Vec<_>>(), ["100.101.2.3/32", "fd7a:115c:a1e0::1:203/128"]);
    }
}
