//! Packets of the machine that the node is on, which come through a device.

use std::time::Instant;

use mesh_filter::{Packet, Transport};
use tracing::trace;

use super::Core;
use super::tunnel::WireGuard;

impl<T: WireGuard> Core<T> {
    /// Encrypts a packet of the machine as [`Self::send_packet`] does those of programs. Dropped is what comes neither from the
    /// node's own addresses nor from routes that it serves, and what the node itself has sent, by UDP from `own_port`: a
    /// subnet of a peer may have the very address where the peer is reached, and no tunnel must lead into itself.
    pub(crate) fn send_of_machine(&mut self, bytes: &[u8], own_port: u16, now: Instant) {
        let Ok(packet) = Packet::parse(bytes) else { return };
        let is_nodes = packet.transport == Transport::Udp && packet.source.port() == own_port;
        if is_nodes || !self.gate.filter.is_local(packet.source.ip()) {
            trace!("packet of the machine dropped");
            return;
        }
        self.send(&packet, bytes, now);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use ipnet::IpNet;
    use jiff::Timestamp;
    use mesh_keys::{DiscoPrivate, NodePrivate};
    use mesh_wire::{MapResponse, Node};
    use mesh_wireguard::Tunnels;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::control::Update;
    use crate::core::{Random, Routing};

    const OWN: [u8; 4] = [100, 64, 0, 1];

    const OWN_PORT: u16 = 41_641;

    /// A node that serves these routes.
    fn core(routes: &[IpNet], now: Instant) -> Core {
        let private = NodePrivate::from_bytes([1; 32]);
        let disco = DiscoPrivate::from_bytes([2; 32]);
        let random = Random::new(|_| true);
        let mut core = Core::<Tunnels>::new(&private, disco, Routing::default(), random, now);
        let own = IpNet::from(IpAddr::from(OWN));
        let allowed_ips = routes.iter().copied().chain([own]).collect();
        let node = Node { addresses: vec![own], allowed_ips: Some(allowed_ips), ..Node::default() };
        let told = MapResponse { node: Some(node.into()), ..MapResponse::default() };
        core.handle_update(Update::Message(told.into()), Timestamp::UNIX_EPOCH, now);
        core
    }

    /// A packet to the node itself, which is what shows without a peer that it has passed.
    fn packet(protocol: u8, source: [u8; 4], port: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0];
        packet.extend(source.into_iter().chain(OWN));
        packet.extend(port.to_be_bytes());
        packet.resize(40, 0);
        packet
    }

    /// Addresses near each other, so that routes often have them.
    fn any_address() -> impl Strategy<Value = [u8; 4]> {
        prop_oneof![Just(OWN), (0..2_u8, 0..4_u8).prop_map(|(third, last)| [10, 0, third, last])]
    }

    fn any_route() -> impl Strategy<Value = IpNet> {
        (any_address(), prop_oneof![Just(0), 22..=32_u8]).prop_map(|(address, length)| {
            IpNet::new(address.into(), length).expect("a length of IPv4").trunc()
        })
    }

    proptest! {
        /// The model looks at each route in turn.
        #[test]
        fn just_what_is_the_nodes_to_send_leaves_the_machine(
            routes in vec(any_route(), 0..4),
            packets in vec(
                (
                    prop_oneof![Just(1_u8), Just(6), Just(17), Just(47)],
                    any_address(),
                    prop_oneof![Just(OWN_PORT), any::<u16>()],
                ),
                1..20,
            ),
        ) {
            let now = Instant::now();
            let mut core = core(&routes, now);
            for (protocol, source, port) in packets {
                core.outbox.accepted.clear();
                core.send_of_machine(&packet(protocol, source, port), OWN_PORT, now);
                let address = IpAddr::from(source);
                let is_served =
                    source == OWN || routes.iter().any(|route| route.contains(&address));
                let is_nodes = protocol == 17 && port == OWN_PORT;
                prop_assert_eq!(!core.outbox.accepted.is_empty(), is_served && !is_nodes);
            }
        }

        #[test]
        fn bytes_of_a_device_never_panic(bytes in vec(any::<u8>(), 0..80)) {
            core(&[], Instant::now()).send_of_machine(&bytes, OWN_PORT, Instant::now());
        }
    }
}
