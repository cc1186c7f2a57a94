//! What an incoming packet is about, as far as it must be known before smoltcp sees it.

use std::net::{IpAddr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpAddress, IpProtocol, IpVersion, Ipv4Packet, Ipv6Packet, TcpPacket, TcpSeqNumber, UdpPacket,
    UdpRepr,
};

/// ICMP's type of an echo request.
const ECHO_REQUEST_V4: u8 = 8;

/// `ICMPv6`'s type of an echo request.
const ECHO_REQUEST_V6: u8 = 128;

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
    /// A TCP segment, its checksum not yet verified.
    Tcp(Segment),
    /// A UDP datagram.
    Udp(Flow, &'p [u8]),
    /// An ICMP echo request to this address, its checksum not yet verified.
    Echo(IpAddr),
}

/// The head of a TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) flow: Flow,
    pub(crate) is_syn: bool,
    pub(crate) is_fin: bool,
    pub(crate) is_rst: bool,
    /// The acknowledgement number, if the segment has one.
    pub(crate) acknowledges: Option<TcpSeqNumber>,
    /// The sequence number behind the segment.
    pub(crate) end: TcpSeqNumber,
    /// Whether the peer takes nothing more.
    pub(crate) closes_window: bool,
}

impl Segment {
    /// Whether the segment asks for a new connection.
    pub(crate) fn opens(&self) -> bool {
        self.is_syn && self.acknowledges.is_none() && !self.is_rst && !self.is_fin
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
            if packet.more_frags() || packet.frag_offset() != 0 {
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
        let flow = flow(segment.src_port(), segment.dst_port());
        return (flow.local.port() != 0 && flow.remote.port() != 0).then(|| {
            Incoming::Tcp(Segment {
                flow,
                is_syn: segment.syn(),
                is_fin: segment.fin(),
                is_rst: segment.rst(),
                acknowledges: segment.ack().then(|| segment.ack_number()),
                end: segment.seq_number() + segment.segment_len(),
                closes_window: segment.window_len() == 0,
            })
        });
    }
    if protocol == IpProtocol::Udp {
        let datagram = UdpPacket::new_checked(payload).ok()?;
        let checksums = ChecksumCapabilities::default();
        let ports = UdpRepr::parse(&datagram, &source, &destination, &checksums).ok()?;
        return (ports.src_port != 0)
            .then(|| Incoming::Udp(flow(ports.src_port, ports.dst_port), datagram.payload()));
    }
    let echo = match destination {
        IpAddress::Ipv4(_) => (IpProtocol::Icmp, ECHO_REQUEST_V4),
        IpAddress::Ipv6(_) => (IpProtocol::Icmpv6, ECHO_REQUEST_V6),
    };
    let is_echo = protocol == echo.0 && payload.first() == Some(&echo.1);
    is_echo.then(|| Incoming::Echo(destination.into()))
}
