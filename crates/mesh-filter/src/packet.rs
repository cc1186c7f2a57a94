//! The little of an IP packet that a filter looks at.
//!
//! Nothing is reassembled and no checksum is proven: that is the business of whoever takes the packet in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV4: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SCTP: u8 = 132;
/// Tailscale's messages between nodes, under the number for private encryption schemes.
const TSMP: u8 = 99;
/// IPv6's hop-by-hop options, which would hide the protocol behind them.
const HOP_BY_HOP: u8 = 0;
const RESERVED: u8 = 255;
/// IPv6's fragment header, the only extension header that is looked behind.
const FRAGMENT_HEADER: u8 = 44;

/// Where a later fragment may begin, in blocks of 8 bytes: behind the longest IPv4 header and a TCP header, so
/// that it cannot write over ports and flags that the first fragment showed.
///
/// Source: RFC 1858, section 3; the figure is that of tailscale `net/packet/packet.go`.
const FRAGMENT_OFFSET_MIN: u16 = (60 + 20) / 8;

/// What a filter needs to know of a packet.
///
/// Both addresses are of the same family; a protocol without ports has port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Who sends it.
    pub source: SocketAddr,
    /// Who shall get it.
    pub destination: SocketAddr,
    /// What it carries.
    pub transport: Transport,
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A segment of a TCP connection.
    Tcp {
        /// Whether it opens the connection: SYN without ACK.
        is_syn: bool,
    },
    /// A UDP datagram.
    Udp,
    /// An SCTP packet.
    Sctp,
    /// A message of the family's ICMP.
    Icmp(Icmp),
    /// Tailscale's message to the node itself, as "your packet was refused".
    Tsmp,
    /// Any fragment but the first: what it carries is in the first.
    LaterFragment,
    /// Another protocol, by its number.
    Other(u8),
}

/// What an ICMP message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Icmp {
    /// The answer to an echo request.
    EchoReply,
    /// Destination unreachable, packet too big, time exceeded or parameter problem.
    Error,
    /// An echo request, or anything else.
    Other,
}

/// Why bytes are not a packet that a filter can judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PacketError {
    /// The packet ends within a header, or before the length that its header says.
    #[error("the packet is cut off")]
    CutOff,
    /// It is neither IPv4 nor IPv6.
    #[error("there is no ip version {0}")]
    Version(u8),
    /// The lengths in its header contradict each other.
    #[error("the header's lengths contradict each other")]
    Lengths,
    /// A fragment that could hide or change the ports.
    #[error("the fragment could hide or change a header")]
    Fragment,
    /// A protocol number that stands for no protocol.
    #[error("ip protocol {0} carries nothing")]
    Protocol(u8),
}

impl Packet {
    /// Reads the headers of an IPv4 or IPv6 packet; bytes behind the packet's own length are ignored.
    ///
    /// IPv6 extension headers other than a fragment header are a protocol of their own, [`Transport::Other`].
    ///
    /// # Errors
    /// A [`PacketError`] for what no honest node sends.
    ///
    /// Source: RFC 791 and RFC 8200; tailscale `net/packet/packet.go`, `Decode`.
    pub fn parse(bytes: &[u8]) -> Result<Self, PacketError> {
        match bytes.first().ok_or(PacketError::CutOff)? >> 4 {
            4 => parse_v4(bytes),
            6 => parse_v6(bytes),
            version => Err(PacketError::Version(version)),
        }
    }
}

impl Transport {
    fn has_ports(self) -> bool {
        match self {
            Self::Tcp { .. } | Self::Udp | Self::Sctp => true,
            Self::Icmp(_) | Self::Tsmp | Self::LaterFragment | Self::Other(_) => false,
        }
    }
}

fn parse_v4(bytes: &[u8]) -> Result<Packet, PacketError> {
    let header: &[u8; 20] = bytes.first_chunk().ok_or(PacketError::CutOff)?;
    let total_bytes = usize::from(u16_at(header, 2));
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    if header_bytes < header.len() || total_bytes < header_bytes {
        return Err(PacketError::Lengths);
    }
    let body = bytes.get(header_bytes..total_bytes).ok_or(PacketError::CutOff)?;
    let fragment =
        Fragment { offset: u16_at(header, 6) & 0x1fff, is_last: u16_at(header, 6) & 0x2000 == 0 };
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let addresses = [Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3)];
    parse_body(addresses.map(IpAddr::V4), fragment, header[9], body)
}

fn parse_v6(bytes: &[u8]) -> Result<Packet, PacketError> {
    let (header, rest) = bytes.split_first_chunk::<40>().ok_or(PacketError::CutOff)?;
    let body_bytes = usize::from(u16_at(header, 4));
    let body = rest.get(..body_bytes).ok_or(PacketError::CutOff)?;
    let (addresses, _) = header[8..].as_chunks::<16>();
    let [source, destination] =
        *addresses.first_chunk().expect("invariant: 32 bytes are two addresses");
    let addresses = [source, destination].map(|octets| IpAddr::V6(Ipv6Addr::from(octets)));
    if header[6] != FRAGMENT_HEADER {
        return parse_body(addresses, Fragment::WHOLE, header[6], body);
    }
    let (header, body) = body.split_first_chunk::<8>().ok_or(PacketError::CutOff)?;
    let fragment = Fragment { offset: u16_at(header, 2) >> 3, is_last: u16_at(header, 2) & 1 == 0 };
    parse_body(addresses, fragment, header[0], body)
}

/// Which part of a packet was sent.
#[derive(Clone, Copy)]
struct Fragment {
    /// Where it begins, in blocks of 8 bytes.
    offset: u16,
    is_last: bool,
}

impl Fragment {
    const WHOLE: Self = Self { offset: 0, is_last: true };
}

fn parse_body(
    [source, destination]: [IpAddr; 2],
    fragment: Fragment,
    protocol: u8,
    body: &[u8],
) -> Result<Packet, PacketError> {
    let transport = match fragment.offset {
        0 => parse_transport(source.is_ipv4(), fragment.is_last, protocol, body)?,
        FRAGMENT_OFFSET_MIN.. => Transport::LaterFragment,
        _ => return Err(PacketError::Fragment),
    };
    let ports = if transport.has_ports() { [u16_at(body, 0), u16_at(body, 2)] } else { [0, 0] };
    Ok(Packet {
        source: SocketAddr::new(source, ports[0]),
        destination: SocketAddr::new(destination, ports[1]),
        transport,
    })
}

/// Reads what stands at the beginning of a packet's body. A first fragment must hold the whole header, too.
fn parse_transport(
    is_v4: bool,
    is_whole: bool,
    protocol: u8,
    body: &[u8],
) -> Result<Transport, PacketError> {
    let has = |bytes| if body.len() < bytes { Err(PacketError::CutOff) } else { Ok(()) };
    Ok(match protocol {
        TCP => {
            has(20)?;
            Transport::Tcp { is_syn: body[13] & (TCP_SYN | TCP_ACK) == TCP_SYN }
        }
        UDP => has(8).map(|()| Transport::Udp)?,
        SCTP => has(12).map(|()| Transport::Sctp)?,
        ICMPV4 if is_v4 => has(8).map(|()| Transport::Icmp(parse_icmpv4(body[0], body[1])))?,
        ICMPV6 if !is_v4 => has(8).map(|()| Transport::Icmp(parse_icmpv6(body[0], body[1])))?,
        TSMP if !is_whole => return Err(PacketError::Fragment),
        TSMP => has(TSMP_BYTES_MIN).map(|()| Transport::Tsmp)?,
        HOP_BY_HOP | RESERVED => return Err(PacketError::Protocol(protocol)),
        other => Transport::Other(other),
    })
}

const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// The shortest message of Tailscale's own: that a packet was refused.
const TSMP_BYTES_MIN: usize = 7;

/// Source: RFC 792.
fn parse_icmpv4(kind: u8, code: u8) -> Icmp {
    match (kind, code) {
        (0, 0) => Icmp::EchoReply,
        (3 | 11 | 12, _) => Icmp::Error,
        _ => Icmp::Other,
    }
}

/// Source: RFC 4443.
fn parse_icmpv6(kind: u8, code: u8) -> Icmp {
    match (kind, code) {
        (129, 0) => Icmp::EchoReply,
        (1..=4, _) => Icmp::Error,
        _ => Icmp::Other,
    }
}

/// The number at an offset that the caller knows to be there.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests;
