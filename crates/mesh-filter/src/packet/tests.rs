use proptest::prelude::*;

use super::*;

const V4: [[u8; 4]; 2] = [[10, 0, 0, 2], [10, 0, 0, 1]];
/// A fragment field that says "more follow" in IPv4.
const MORE: u16 = 0x2000;

fn v4(protocol: u8, fragment: u16, body: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + body.len()).expect("short");
    let mut bytes = vec![0x45, 0];
    bytes.extend(total.to_be_bytes());
    bytes.extend([0; 2]);
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(V4.concat());
    bytes.extend(body);
    bytes
}

fn v6(protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
    bytes.extend([protocol, 64]);
    for last in [2, 1] {
        bytes.extend([0xfd, 0x7a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    bytes.extend(body);
    bytes
}

/// An IPv6 body behind a fragment header; the field is offset and "more follow".
fn v6_fragment(protocol: u8, field: u16, body: &[u8]) -> Vec<u8> {
    let [high, low] = field.to_be_bytes();
    v6(FRAGMENT_HEADER, &[&[protocol, 0, high, low, 0, 0, 0, 1], body].concat())
}

/// The body of a packet from port 1000 to port 53, with room for any header.
fn body(flags: u8) -> Vec<u8> {
    let mut bytes = vec![0x03, 0xe8, 0, 53];
    bytes.resize(24, 0);
    bytes[13] = flags;
    bytes
}

fn message(kind: u8, code: u8) -> Vec<u8> {
    vec![kind, code, 0, 0, 0, 0, 0, 0]
}

fn check(bytes: &[u8], expected: Result<&str, PacketError>) {
    let shown = Packet::parse(bytes)
        .map(|packet| format!("{} > {} {:?}", packet.source, packet.destination, packet.transport));
    assert_eq!(shown, expected.map(str::to_owned), "{bytes:02x?}");
}

#[test]
fn protocols_with_ports_show_them() {
    check(&v4(UDP, 0, &body(0)), Ok("10.0.0.2:1000 > 10.0.0.1:53 Udp"));
    check(&v6(UDP, &body(0)), Ok("[fd7a::2]:1000 > [fd7a::1]:53 Udp"));
    check(&v4(SCTP, 0, &body(0)), Ok("10.0.0.2:1000 > 10.0.0.1:53 Sctp"));
    let syn = "10.0.0.2:1000 > 10.0.0.1:53 Tcp { is_syn: true }";
    let rest = "10.0.0.2:1000 > 10.0.0.1:53 Tcp { is_syn: false }";
    check(&v4(TCP, 0, &body(TCP_SYN)), Ok(syn));
    check(&v4(TCP, 0, &body(TCP_SYN | 0xc0)), Ok(syn));
    for flags in [TCP_SYN | TCP_ACK, TCP_ACK, 0x04, 0] {
        check(&v4(TCP, 0, &body(flags)), Ok(rest));
    }
}

#[test]
fn icmp_is_that_of_the_family() {
    for (kind, code, expected) in [
        (0, 0, "EchoReply"),
        (0, 1, "Other"),
        (8, 0, "Other"),
        (3, 4, "Error"),
        (11, 0, "Error"),
        (12, 0, "Error"),
        (5, 0, "Other"),
    ] {
        let shown = format!("10.0.0.2:0 > 10.0.0.1:0 Icmp({expected})");
        check(&v4(ICMPV4, 0, &message(kind, code)), Ok(&shown));
    }
    for (kind, expected) in [(129, "EchoReply"), (128, "Other"), (1, "Error"), (2, "Error")] {
        let shown = format!("[fd7a::2]:0 > [fd7a::1]:0 Icmp({expected})");
        check(&v6(ICMPV6, &message(kind, 0)), Ok(&shown));
    }
    check(&v4(ICMPV6, 0, &message(129, 0)), Ok("10.0.0.2:0 > 10.0.0.1:0 Other(58)"));
    check(&v6(ICMPV4, &message(0, 0)), Ok("[fd7a::2]:0 > [fd7a::1]:0 Other(1)"));
}

#[test]
fn other_protocols_are_told_by_number() {
    check(&v4(TSMP, 0, &body(0)), Ok("10.0.0.2:0 > 10.0.0.1:0 Tsmp"));
    check(&v4(47, 0, &[]), Ok("10.0.0.2:0 > 10.0.0.1:0 Other(47)"));
    check(&v6(43, &body(0)), Ok("[fd7a::2]:0 > [fd7a::1]:0 Other(43)"));
    check(&v4(HOP_BY_HOP, 0, &body(0)), Err(PacketError::Protocol(0)));
    check(&v6(HOP_BY_HOP, &body(0)), Err(PacketError::Protocol(0)));
    check(&v4(RESERVED, 0, &body(0)), Err(PacketError::Protocol(255)));
}

#[test]
fn first_fragment_shows_its_ports_and_later_ones_pass_as_such() {
    check(&v4(UDP, MORE, &body(0)), Ok("10.0.0.2:1000 > 10.0.0.1:53 Udp"));
    check(&v6_fragment(UDP, 1, &body(0)), Ok("[fd7a::2]:1000 > [fd7a::1]:53 Udp"));
    check(&v4(UDP, 10, &[]), Ok("10.0.0.2:0 > 10.0.0.1:0 LaterFragment"));
    check(&v6_fragment(UDP, 10 << 3, &[]), Ok("[fd7a::2]:0 > [fd7a::1]:0 LaterFragment"));
}

#[test]
fn fragments_that_could_hide_a_header_are_refused() {
    for offset in 1..FRAGMENT_OFFSET_MIN {
        check(&v4(UDP, offset, &body(0)), Err(PacketError::Fragment));
        check(&v6_fragment(UDP, offset << 3, &body(0)), Err(PacketError::Fragment));
    }
    check(&v4(TCP, MORE, &body(TCP_SYN)[..19]), Err(PacketError::CutOff));
    check(&v4(TSMP, MORE, &body(0)), Err(PacketError::Fragment));
    check(&v6_fragment(TSMP, 1, &body(0)), Err(PacketError::Fragment));
}

#[test]
fn header_lengths_must_agree() {
    let udp = v4(UDP, 0, &body(0));
    let with = |at: usize, byte| {
        let mut bytes = udp.clone();
        bytes[at] = byte;
        bytes
    };
    check(&with(0, 0x44), Err(PacketError::Lengths));
    check(&with(3, 19), Err(PacketError::Lengths));
    check(&with(3, 0xff), Err(PacketError::CutOff));
    check(&with(0, 0x55), Err(PacketError::Version(5)));
    check(&[], Err(PacketError::CutOff));
    let options = [&with(0, 0x46)[..20], &[1; 4], &body(0)[..20]].concat();
    check(&options, Ok("10.0.0.2:1000 > 10.0.0.1:53 Udp"));
}

#[test]
fn what_is_behind_the_packet_is_not_part_of_it() {
    check(&[v4(UDP, 0, &body(0)), vec![9; 9]].concat(), Ok("10.0.0.2:1000 > 10.0.0.1:53 Udp"));
    check(&[v4(UDP, 0, &[]), body(0)].concat(), Err(PacketError::CutOff));
    check(&[v6(UDP, &[]), body(0)].concat(), Err(PacketError::CutOff));
}

/// Any bytes, mostly with the beginning of a packet.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let any_body = || prop::collection::vec(any::<u8>(), 0..64);
    let protocol = || prop_oneof![any::<u8>(), Just(TCP), Just(ICMPV4), Just(FRAGMENT_HEADER)];
    prop_oneof![
        any_body(),
        (protocol(), any::<u16>(), any_body())
            .prop_map(|(protocol, fragment, body)| v4(protocol, fragment, &body)),
        (protocol(), any_body()).prop_map(|(protocol, body)| v6(protocol, &body)),
        (protocol(), any::<u16>(), any_body())
            .prop_map(|(protocol, fragment, body)| v6_fragment(protocol, fragment, &body)),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_a_packet_or_an_error_and_no_packet_is_cut_off(bytes in bytes()) {
        let Ok(packet) = Packet::parse(&bytes) else { return Ok(()) };
        prop_assert_eq!(packet.source.is_ipv4(), packet.destination.is_ipv4());
        let (length_at, around) = if packet.source.is_ipv4() { (2, 0) } else { (4, 40) };
        let total = around + usize::from(u16_at(&bytes, length_at));
        prop_assert_eq!(Packet::parse(&bytes[..total]), Ok(packet));
        for cut in 0..total {
            prop_assert!(Packet::parse(&bytes[..cut]).is_err());
        }
    }
}
