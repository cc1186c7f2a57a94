//! Pings and pongs between the tunnels' ends, which no operating system answers (TSMP).
//!
//! Source: tailscale `net/packet/tsmp.go`, `net/tstun/wrap.go`.

use std::net::IpAddr;

/// The protocol's number.
const PROTOCOL: u8 = 99;

/// The first byte of a ping.
const PING: u8 = b'p';

/// The first byte of a pong. Behind its cookie stands the port of the peer's API; 0 is none.
const PONG: u8 = b'o';

/// Hops a packet may take, as Tailscale has it.
const TTL: u8 = 64;

/// What a pong repeats of its ping.
pub(crate) type Cookie = [u8; 8];

/// What a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    Ping(Cookie),
    Pong(Cookie),
}

/// Reads the message in a packet; `None` for other messages and other packets.
pub(crate) fn parse(packet: &[u8]) -> Option<Message> {
    let (protocol, header) = match packet.first()? >> 4 {
        4 => (*packet.get(9)?, usize::from(packet[0] & 0xf) * 4),
        6 => (*packet.get(6)?, 40),
        _ => return None,
    };
    let (kind, rest) = packet.get(header..)?.split_first()?;
    let cookie = *rest.first_chunk()?;
    match *kind {
        _ if protocol != PROTOCOL => None,
        PING => Some(Message::Ping(cookie)),
        PONG => Some(Message::Pong(cookie)),
        _ => None,
    }
}

/// Writes a packet with a message; `None` if the addresses are not of one family.
pub(crate) fn encode(message: Message, source: IpAddr, destination: IpAddr) -> Option<Vec<u8>> {
    let payload = match message {
        Message::Ping(cookie) => [&[PING], &cookie[..]].concat(),
        Message::Pong(cookie) => [&[PONG], &cookie[..], &[0, 0]].concat(),
    };
    let length = u8::try_from(payload.len()).ok()?;
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = vec![0x45, 0, 0, 20 + length, 0, 0, 0, 0, TTL, PROTOCOL, 0, 0];
            header.extend([source.octets(), destination.octets()].concat());
            let checksum = checksum(&header).to_be_bytes();
            header[10..12].copy_from_slice(&checksum);
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = vec![0x60, 0, 0, 0, 0, length, PROTOCOL, TTL];
            header.extend([source.octets(), destination.octets()].concat());
            header
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    packet.extend(payload);
    Some(packet)
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let sum = bytes.chunks(2).fold(0_u32, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or_default()]))
    });
    let folded = (sum & 0xffff) + (sum >> 16);
    let [.., high, low] = ((folded & 0xffff) + (folded >> 16)).to_be_bytes();
    !u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, destination: &str) {
        let [source, destination] = [source, destination].map(|ip| ip.parse().expect("an address"));
        for message in [Message::Ping(*b"question"), Message::Pong(*b"response")] {
            let packet = encode(message, source, destination).expect("one family");
            assert_eq!(parse(&packet), Some(message));
            let seen = mesh_filter::Packet::parse(&packet).expect("a packet");
            assert_eq!((seen.source.ip(), seen.destination.ip()), (source, destination));
            assert_eq!(seen.transport, mesh_filter::Transport::Tsmp);
            assert!(
                (0..packet.len())
                    .all(|end| parse(&packet[..end]) != Some(message) || end >= packet.len() - 2)
            );
        }
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        check("100.64.0.1", "100.64.0.2");
        check("fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2");
    }

    #[test]
    fn header_bears_its_checksum() {
        let [source, destination] = [[100, 64, 0, 1].into(), [100, 64, 0, 2].into()];
        let packet = encode(Message::Ping([0; 8]), source, destination).expect("one family");
        assert_eq!(checksum(&packet[..20]), 0);
    }
}
