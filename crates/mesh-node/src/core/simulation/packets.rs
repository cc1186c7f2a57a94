//! UDP datagrams without content, in IPv4 packets.

use std::net::{IpAddr, SocketAddr};

use mesh_filter::{Packet, Transport};

const HEADERS_BYTES: u8 = 28;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
}

pub(super) fn encode(datagram: &Datagram) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, HEADERS_BYTES, 0, 0, 0, 0, 64, 17, 0, 0];
    for end in [datagram.source, datagram.destination] {
        let IpAddr::V4(ip) = end.ip() else { unreachable!("all is IPv4") };
        packet.extend(ip.octets());
    }
    packet.extend(datagram.source.port().to_be_bytes());
    packet.extend(datagram.destination.port().to_be_bytes());
    packet.extend([0, 8, 0, 0]);
    packet
}

pub(super) fn decode(packet: &[u8]) -> Option<Datagram> {
    let Packet { source, destination, transport } = Packet::parse(packet).ok()?;
    (transport == Transport::Udp).then_some(Datagram { source, destination })
}
