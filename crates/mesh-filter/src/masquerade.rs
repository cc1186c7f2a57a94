//! Other addresses for the node: what a peer sees that knows it by another one than its own.
//!
//! A node that is shared into several tailnets may have an address in each, and the control server says which one a
//! peer knows. Packets to that peer leave with it as their source, packets from it come with it as their destination.
//!
//! Source: tailscale `tailcfg.Node.SelfNodeV4MasqAddrForThisPeer`; `net/tstun/wrap.go`, `net/packet/checksum`.

use std::net::IpAddr;
use std::ops::Range;

use crate::packet::{ICMPV6, TCP, UDP};

/// Where things are in a header of one family, and how a checksum behind it is found.
struct Layout {
    source: Range<usize>,
    destination: Range<usize>,
    protocol: usize,
    /// Where the header's own checksum is, if it has one.
    checksum: Option<usize>,
}

const V4: Layout = Layout { source: 12..16, destination: 16..20, protocol: 9, checksum: Some(10) };
const V6: Layout = Layout { source: 8..24, destination: 24..40, protocol: 6, checksum: None };

/// Where DCCP is in the list of protocols; its checksum covers addresses, too.
const DCCP: u8 = 33;

/// Writes `to` as the source of a packet from `from`; returns whether it was from there.
///
/// Checksums are mended, not proven: what was wrong before stays wrong. Where `from` and `to` are not of the packet's
/// family, and where bytes are no packet, nothing changes.
pub fn replace_source(packet: &mut [u8], from: IpAddr, to: IpAddr) -> bool {
    replace(packet, from, to, |layout| layout.source.clone())
}

/// Writes `to` as the destination of a packet to `from`; returns whether it was for there. See [`replace_source`].
pub fn replace_destination(packet: &mut [u8], from: IpAddr, to: IpAddr) -> bool {
    replace(packet, from, to, |layout| layout.destination.clone())
}

fn replace(
    packet: &mut [u8],
    from: IpAddr,
    to: IpAddr,
    place: impl FnOnce(&Layout) -> Range<usize>,
) -> bool {
    let (layout, header_bytes) = match (packet.first().map(|first| first >> 4), from, to) {
        (Some(4), IpAddr::V4(_), IpAddr::V4(_)) => (V4, usize::from(packet[0] & 0x0f) * 4),
        (Some(6), IpAddr::V6(_), IpAddr::V6(_)) => (V6, 40),
        _ => return false,
    };
    let (from, to) = (Octets::from(from), Octets::from(to));
    let place = place(&layout);
    let is_whole = header_bytes >= layout.destination.end && packet.len() >= header_bytes;
    if !is_whole || packet[place.clone()] != *from.as_slice() {
        return false;
    }
    packet[place].copy_from_slice(to.as_slice());
    let transport = transport_checksum(packet, &layout, header_bytes);
    for checksum in [layout.checksum, transport].into_iter().flatten() {
        mend(packet, checksum, from.as_slice(), to.as_slice());
    }
    true
}

/// Where the checksum is that covers the addresses from behind the header, if the packet has one.
fn transport_checksum(packet: &[u8], layout: &Layout, header_bytes: usize) -> Option<usize> {
    let is_v4 = layout.checksum.is_some();
    // Only the first fragment has it; IPv6 says so in a header of its own, which is another protocol.
    if is_v4 && u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff != 0 {
        return None;
    }
    let offset = match packet[layout.protocol] {
        TCP => 16,
        UDP | DCCP => 6,
        ICMPV6 if !is_v4 => 2,
        _ => return None,
    };
    let at = header_bytes + offset;
    let checksum = packet.get(at..at + 2)?;
    // A datagram may go without.
    let is_absent = packet[layout.protocol] == UDP && checksum == [0, 0];
    (!is_absent).then_some(at)
}

/// Takes `from` out of a checksum and `to` into it.
///
/// Source: RFC 1624, equation 3.
fn mend(packet: &mut [u8], at: usize, from: &[u8], to: &[u8]) {
    let word = |pair: &[u8; 2]| u32::from(u16::from_be_bytes(*pair));
    let before = !word(&[packet[at], packet[at + 1]]) & 0xffff;
    let removed: u32 = from.as_chunks().0.iter().map(|pair| !word(pair) & 0xffff).sum();
    let added: u32 = to.as_chunks().0.iter().map(word).sum();
    let mut sum = before + removed + added;
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    let checksum = u16::try_from(!sum & 0xffff).expect("invariant: 16 bits are left");
    // Zero and all ones say the same, but for UDP, where zero is none.
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// The bytes of an address.
enum Octets {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl Octets {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::V4(octets) => octets,
            Self::V6(octets) => octets,
        }
    }
}

impl From<IpAddr> for Octets {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => Self::V6(address.octets()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// The ones' complement sum over all words, as RFC 1071 tells it.
    fn sum(parts: &[&[u8]]) -> u16 {
        let mut sum = 0_u32;
        for part in parts {
            for pair in part.chunks(2) {
                sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
                sum = (sum >> 16) + (sum & 0xffff);
            }
        }
        u16::try_from(sum).expect("16 bits")
    }

    /// A packet with right checksums.
    fn packet(source: IpAddr, destination: IpAddr, protocol: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        let (ends, mut packet) = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let total = u16::try_from(20 + body.len()).expect("short").to_be_bytes();
                let mut header = vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, protocol, 0, 0];
                header.extend(source.octets());
                header.extend(destination.octets());
                let checksum = (!sum(&[&header])).to_be_bytes();
                header[10..12].copy_from_slice(&checksum);
                (header[12..].to_vec(), header)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut header = vec![0x60, 0, 0, 0, length[0], length[1], protocol, 64];
                header.extend(source.octets());
                header.extend(destination.octets());
                (header[8..].to_vec(), header)
            }
            _ => panic!("two families"),
        };
        let mut body = body.to_vec();
        if let Some(at) = checksum_in(protocol, source.is_ipv4()) {
            body[at..at + 2].fill(0);
            let checksum = !sum(&[&ends, &length, &[0, protocol], &body]);
            body[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        packet.extend(body);
        packet
    }

    fn checksum_in(protocol: u8, is_v4: bool) -> Option<usize> {
        match protocol {
            6 => Some(16),
            17 => Some(6),
            58 if !is_v4 => Some(2),
            _ => None,
        }
    }

    fn any_addresses() -> impl Strategy<Value = [IpAddr; 3]> {
        let v4 = any::<[u32; 3]>().prop_map(|bits| bits.map(|bits| Ipv4Addr::from(bits).into()));
        let v6 = any::<[u128; 3]>().prop_map(|bits| bits.map(|bits| Ipv6Addr::from(bits).into()));
        prop_oneof![v4, v6]
    }

    /// A checksum of all ones says the same as one of all zeros.
    fn normal(mut packet: Vec<u8>, protocol: u8) -> Vec<u8> {
        let is_v4 = packet[0] >> 4 == 4;
        let header_bytes = if is_v4 { 20 } else { 40 };
        let transport = checksum_in(protocol, is_v4).map(|at| header_bytes + at);
        for at in [is_v4.then_some(10), transport].into_iter().flatten() {
            if packet[at..at + 2] == [0xff, 0xff] {
                packet[at..at + 2].fill(0);
            }
        }
        packet
    }

    proptest! {
        #[test]
        fn replaced_is_as_made_anew(
            [ours, other, theirs] in any_addresses(),
            protocol in prop_oneof![Just(6), Just(17), Just(1), Just(58), Just(132)],
            body in proptest::collection::vec(any::<u8>(), 20..60),
        ) {
            let check = |mut changed: Vec<u8>, expected: Vec<u8>, replace: fn(&mut [u8], IpAddr, IpAddr) -> bool| {
                assert!(replace(&mut changed, ours, other));
                assert_eq!(normal(changed, protocol), normal(expected, protocol));
            };
            let outgoing = packet(ours, theirs, protocol, &body);
            // A datagram whose right checksum is zero counts as one without; RFC 768 wants it sent as all ones.
            let has_none = protocol == 17 && outgoing[outgoing.len() - body.len() + 6..][..2] == [0, 0];
            if !has_none {
                check(outgoing, packet(other, theirs, protocol, &body), replace_source);
                let incoming = packet(theirs, ours, protocol, &body);
                check(incoming, packet(theirs, other, protocol, &body), replace_destination);
            }
        }

        #[test]
        fn garbage_does_no_harm(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..80),
            version in prop_oneof![Just(0x45), Just(0x4f), Just(0x40), Just(0x60)],
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = version;
            }
            let v4 = bytes.get(12..16).map(|octets| Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]));
            let from = IpAddr::V4(v4.unwrap_or(Ipv4Addr::LOCALHOST));
            let length = bytes.len();
            replace_source(&mut bytes, from, IpAddr::V4(Ipv4Addr::BROADCAST));
            replace_destination(&mut bytes, IpAddr::V6(Ipv6Addr::LOCALHOST), from);
            prop_assert_eq!(bytes.len(), length);
        }
    }

    #[test]
    fn what_is_not_from_there_stays() {
        let [ours, other, theirs] = [1, 2, 3].map(|last| IpAddr::from([100, 64, 0, last]));
        let whole = packet(ours, theirs, 17, &[1, 2, 3, 4, 0, 8, 9, 9]);
        let check = |replaced: fn(&mut [u8], IpAddr, IpAddr) -> bool, from, to| {
            let mut packet = whole.clone();
            assert!(!replaced(&mut packet, from, to));
            assert_eq!(packet, whole);
        };
        check(replace_source, theirs, other);
        check(replace_destination, ours, other);
        check(replace_source, ours, Ipv6Addr::LOCALHOST.into());
        check(replace_source, Ipv6Addr::LOCALHOST.into(), other);
    }

    #[test]
    fn datagram_without_checksum_stays_without() {
        let [ours, other, theirs] = [1, 2, 3].map(|last| IpAddr::from([100, 64, 0, last]));
        let mut packet = packet(ours, theirs, 17, &[1, 2, 3, 4, 0, 8, 9, 9]);
        packet[26..28].fill(0);
        assert!(replace_source(&mut packet, ours, other));
        assert_eq!(packet[26..28], [0, 0]);
    }

    #[test]
    fn later_fragment_has_no_checksum_to_mend() {
        let [ours, other, theirs] = [1, 2, 3].map(|last| IpAddr::from([100, 64, 0, last]));
        let mut packet = packet(ours, theirs, 6, &[7; 20]);
        packet[7] = 99;
        let body = packet[20..].to_vec();
        assert!(replace_source(&mut packet, ours, other));
        assert_eq!(packet[20..], body);
    }
}
