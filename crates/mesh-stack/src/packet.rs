//! What an incoming packet is about.

use std::net::SocketAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, IpVersion,
    Ipv4Packet, Ipv6Packet, TcpControl, TcpPacket, TcpRepr, UdpPacket, UdpRepr,
};

use crate::ping::Ends;

/// ICMP's types of an echo request and of its answer.
const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;

/// `ICMPv6`'s types of an echo request and of its answer.
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Flow {
    /// The end here.
    pub(crate) local: SocketAddr,
    /// The end at the peer.
    pub(crate) remote: SocketAddr,
}

/// A packet worth looking at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'p> {
    /// A TCP segment.
    Tcp(Segment<'p>),
    /// A UDP datagram.
    Udp(Flow, &'p [u8]),
    /// An ICMP echo request, its checksum not yet verified.
    Echo(Ends),
    /// The answer to an ICMP echo request.
    EchoReply { ends: Ends, ident: u16, data: &'p [u8] },
}

/// A TCP segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Segment<'p> {
    pub(crate) flow: Flow,
    pub(crate) tcp: TcpRepr<'p>,
}

impl Segment<'_> {
    /// Whether the segment asks for a new connection.
    pub(crate) fn opens(&self) -> bool {
        self.tcp.control == TcpControl::Syn && self.tcp.ack_number.is_none()
    }
}

/// Reads the head of `packet`; `None` for what nobody here can want: what is malformed, a fragment, from or
/// to no single host, or of another protocol.
pub(crate) fn parse(packet: &[u8]) -> Option<Incoming<'_>> {
    if packet.is_empty() {
        return None;
    }
    let (source, destination, protocol, payload) = match IpVersion::of_packet(packet).ok()? {
        IpVersion::Ipv4 => {
            let packet = Ipv4Packet::new_checked(packet).ok()?;
            if packet.more_frags() || packet.frag_offset() != 0 || !packet.verify_checksum() {
                return None;
            }
            let ends = (packet.src_addr().into(), packet.dst_addr().into());
            (ends.0, ends.1, packet.next_header(), packet.payload())
        }
        IpVersion::Ipv6 => {
            let packet = Ipv6Packet::new_checked(packet).ok()?;
            let ends = (packet.src_addr().into(), packet.dst_addr().into());
            (ends.0, ends.1, packet.next_header(), packet.payload())
        }
    };
    let are_hosts = IpAddress::is_unicast(&source) && IpAddress::is_unicast(&destination);
    are_hosts.then(|| parse_payload(source, destination, protocol, payload)).flatten()
}

fn parse_payload(
    source: IpAddress,
    destination: IpAddress,
    protocol: IpProtocol,
    payload: &[u8],
) -> Option<Incoming<'_>> {
    let flow = |source_port, destination_port| Flow {
        local: SocketAddr::new(destination.into(), destination_port),
        remote: SocketAddr::new(source.into(), source_port),
    };
    if protocol == IpProtocol::Tcp {
        let segment = TcpPacket::new_checked(payload).ok()?;
        let checksums = ChecksumCapabilities::default();
        let tcp = TcpRepr::parse(&segment, &source, &destination, &checksums).ok()?;
        return Some(Incoming::Tcp(Segment { flow: flow(tcp.src_port, tcp.dst_port), tcp }));
    }
    if protocol == IpProtocol::Udp {
        let datagram = UdpPacket::new_checked(payload).ok()?;
        let checksums = ChecksumCapabilities::default();
        let ports = UdpRepr::parse(&datagram, &source, &destination, &checksums).ok()?;
        return (ports.src_port != 0)
            .then(|| Incoming::Udp(flow(ports.src_port, ports.dst_port), datagram.payload()));
    }
    if is_icmp(protocol, destination) { parse_icmp(source, destination, payload) } else { None }
}

/// Whether `protocol` is the ICMP of the address's family.
fn is_icmp(protocol: IpProtocol, address: IpAddress) -> bool {
    protocol
        == match address {
            IpAddress::Ipv4(_) => IpProtocol::Icmp,
            IpAddress::Ipv6(_) => IpProtocol::Icmpv6,
        }
}

fn parse_icmp(source: IpAddress, destination: IpAddress, payload: &[u8]) -> Option<Incoming<'_>> {
    let checksums = ChecksumCapabilities::default();
    let ends = Ends { local: destination.into(), remote: source.into() };
    if let (IpAddress::Ipv6(source), IpAddress::Ipv6(destination)) = (source, destination) {
        match *payload.first()? {
            ECHO_REQUEST_V6 => Some(Incoming::Echo(ends)),
            ECHO_REPLY_V6 => {
                let packet = Icmpv6Packet::new_checked(payload).ok()?;
                let reply = Icmpv6Repr::parse(&source, &destination, &packet, &checksums).ok()?;
                let Icmpv6Repr::EchoReply { ident, data, .. } = reply else { return None };
                Some(Incoming::EchoReply { ends, ident, data })
            }
            _ => None,
        }
    } else {
        match *payload.first()? {
            ECHO_REQUEST_V4 => Some(Incoming::Echo(ends)),
            ECHO_REPLY_V4 => {
                let packet = Icmpv4Packet::new_checked(payload).ok()?;
                let reply = Icmpv4Repr::parse(&packet, &checksums).ok()?;
                let Icmpv4Repr::EchoReply { ident, data, .. } = reply else { return None };
                Some(Incoming::EchoReply { ends, ident, data })
            }
            _ => None,
        }
    }
}
