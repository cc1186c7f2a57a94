//! Which packets go where, and which come in.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Instant;

use mesh_filter::{Filter, Flows, Packet, Transport, Verdict, replace_destination, replace_source};
use mesh_peers::{Peer, PeerIndex, PeerTable};
use tracing::trace;

/// Which addresses beside those of peers are reached through the tailnet, and whether the node is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Routing {
    /// Whether the subnets that peers route are.
    pub(crate) accept_routes: bool,
    /// The address of the peer that everything else goes through, if any does.
    pub(crate) exit_node: Option<IpAddr>,
    /// Whether peers may open nothing, whatever policy says.
    pub(crate) shields_up: bool,
}

/// The node's addresses, routes and packet filter.
#[derive(Debug)]
pub(super) struct Gate {
    routing: Routing,
    /// The node's addresses in the tailnet.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) filter: Filter,
    pub(super) flows: Flows,
}

impl Gate {
    pub(super) fn new(routing: Routing) -> Self {
        let (filter, flows) = (Filter::new([]), Flows::new());
        Self { routing, addresses: Vec::new(), filter, flows }
    }

    /// The node's own address of a family.
    pub(super) fn own_address(&self, is_ipv4: bool) -> Option<IpAddr> {
        self.addresses.iter().find(|own| own.is_ipv4() == is_ipv4).copied()
    }

    /// The peer that an address is reached through: whose it is, who routes the subnet it lies in, or the exit node.
    pub(super) fn route_to(&self, peers: &PeerTable, address: IpAddr) -> Option<PeerIndex> {
        let found = peers.by_address(address).filter(|index| {
            let has = |peer: &Peer| peer.addresses.iter().any(|own| own.addr() == address);
            self.routing.accept_routes || peers.get(*index).is_some_and(has)
        });
        let found = found.or_else(|| self.exit_for(peers, address));
        found.filter(|index| super::is_valid(peers, *index))
    }

    /// Whether what is not in the tailnet goes through a peer.
    pub(super) fn uses_exit_node(&self) -> bool {
        self.routing.exit_node.is_some()
    }

    fn exit_for(&self, peers: &PeerTable, address: IpAddr) -> Option<PeerIndex> {
        let index = peers.by_address(self.routing.exit_node?)?;
        let allowed = &peers.get(index)?.allowed_ips;
        let is_exit = allowed.iter().any(|net| net.prefix_len() == 0 && net.contains(&address));
        is_exit.then_some(index)
    }

    /// What a packet of a peer carries, if it may enter: from an address that is reached through that peer, and let in by the
    /// filter.
    pub(super) fn admit(
        &mut self,
        bytes: &[u8],
        index: PeerIndex,
        peers: &PeerTable,
        now: Instant,
    ) -> Option<Transport> {
        let packet = Packet::parse(bytes).ok()?;
        if self.route_to(peers, packet.source.ip()) != Some(index) {
            trace!("packet from an address that is not the peer's");
            return None;
        }
        let Self { filter, flows, routing, .. } = self;
        let verdict = if routing.shields_up || peers.get(index)?.is_jailed {
            filter.check_jailed(&packet, flows, now)
        } else {
            let has_capability = |address: IpAddr, name: &str| {
                let peer = peers.by_address(address).and_then(|index| peers.get(index));
                peer.is_some_and(|peer| peer.cap_map.contains_key(name))
            };
            filter.check(&packet, flows, has_capability, now)
        };
        match verdict {
            Verdict::Accept => Some(packet.transport),
            Verdict::Drop(reason) => {
                trace!(%reason, "packet dropped");
                None
            }
        }
    }

    /// A packet as it leaves for a peer, which may know the node by another address.
    pub(super) fn masked<'p>(
        &self,
        packet: &'p [u8],
        index: PeerIndex,
        peers: &PeerTable,
    ) -> Cow<'p, [u8]> {
        self.rewritten(packet, index, peers, replace_source)
    }

    /// A packet as it is meant that has come from a peer, which may know the node by another address.
    pub(super) fn unmasked<'p>(
        &self,
        packet: &'p [u8],
        index: PeerIndex,
        peers: &PeerTable,
    ) -> Cow<'p, [u8]> {
        let unmask = |packet: &mut [u8], own, mask| replace_destination(packet, mask, own);
        self.rewritten(packet, index, peers, unmask)
    }

    fn rewritten<'p>(
        &self,
        packet: &'p [u8],
        index: PeerIndex,
        peers: &PeerTable,
        rewrite: impl FnOnce(&mut [u8], IpAddr, IpAddr) -> bool,
    ) -> Cow<'p, [u8]> {
        let is_ipv4 = packet.first().is_some_and(|first| first >> 4 == 4);
        let mask = peers.get(index).and_then(|peer| peer.masquerade(is_ipv4));
        let (Some(mask), Some(own)) = (mask, self.own_address(is_ipv4)) else {
            return Cow::Borrowed(packet);
        };
        let mut packet = packet.to_vec();
        rewrite(&mut packet, own, mask);
        Cow::Owned(packet)
    }
}
