//! What programs ask of the engine.

use std::net::IpAddr;
use std::time::Instant;

use mesh_peers::{Peer, PeerIndex};
use mesh_wire::UserProfile;
use tokio::sync::oneshot;

use super::Engine;
use crate::node::{PeerStatus, Status, WhoIs};

/// A question with the place for its answer. Whoever has gone does not wait for one.
#[derive(Debug)]
pub(crate) enum Request {
    /// Whose is an address?
    WhoIs(IpAddr, oneshot::Sender<Option<WhoIs>>),
    /// Which addresses has a name in the tailnet?
    Resolve(String, oneshot::Sender<Vec<IpAddr>>),
    /// Does the tailnet lead to an address?
    Routes(IpAddr, oneshot::Sender<bool>),
    /// What is there to tell?
    Status(oneshot::Sender<Status>),
}

impl Engine {
    pub(super) fn handle_request(&mut self, request: Request) {
        // Who asked may have gone.
        match request {
            Request::WhoIs(address, answer) => drop(answer.send(self.who_is(address))),
            Request::Resolve(name, answer) => drop(answer.send(self.resolve(&name))),
            Request::Routes(address, answer) => {
                let is_own = self.addresses.borrow().contains(&address);
                answer.send(is_own || self.peers.by_address(address).is_some()).ok();
            }
            Request::Status(answer) => drop(answer.send(self.status())),
        }
    }

    fn who_is(&self, address: IpAddr) -> Option<WhoIs> {
        let peer = self.peers.get(self.peers.by_address(address.to_canonical())?)?;
        let addresses = self.addresses.borrow();
        let own = addresses.iter().find(|own| own.is_ipv4() == address.is_ipv4());
        let has_capability = |_: IpAddr, name: &str| peer.cap_map.contains_key(name);
        let cap_map = own
            .map(|own| self.filter.capabilities(address, *own, has_capability))
            .unwrap_or_default();
        Some(WhoIs { node: peer.to_node(), user_profile: self.profile_of(peer), cap_map })
    }

    fn profile_of(&self, peer: &Peer) -> Option<UserProfile> {
        self.netmap.user_profiles.get(&peer.user).cloned()
    }

    /// The addresses of a node by its full name, or by the first label of a name in the own tailnet.
    fn resolve(&self, name: &str) -> Vec<IpAddr> {
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

    fn status(&self) -> Status {
        let now = Instant::now();
        let mut peers: Vec<PeerStatus> =
            self.peers.iter().map(|(index, peer)| self.peer_status(index, peer, now)).collect();
        peers.sort_by(|one, other| one.name.cmp(&other.name));
        Status {
            node: self.netmap.node.as_deref().cloned(),
            tailnet: self.netmap.domain.clone(),
            home: self.ways.home(),
            peers,
        }
    }

    fn peer_status(&self, index: PeerIndex, peer: &Peer, now: Instant) -> PeerStatus {
        let path = self.ways.status(index, now).unwrap_or_default();
        PeerStatus {
            name: (*peer.name).to_owned(),
            addresses: peer.addresses.iter().map(ipnet::IpNet::addr).collect(),
            online: peer.online,
            is_active: path.is_active,
            direct: path.route.udp.filter(|_| path.route.relay.is_none()),
            relay: path.route.relay,
            latency: path.latency,
            last_handshake: self.tunnels.since_handshake(&peer.key),
        }
    }
}
