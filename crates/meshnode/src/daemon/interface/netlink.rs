//! The little of Linux's netlink that an interface needs: addresses and routes.
//!
//! Source: Linux `include/uapi/linux/netlink.h`, `rtnetlink.h`, `if_addr.h`; RFC 3549.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Types of messages.
const ERROR: u16 = 2;
const NEW_ADDRESS: u16 = 20;
const REMOVE_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const REMOVE_ROUTE: u16 = 25;

/// Flags of a request that is to be confirmed, and of one that makes something, or takes the place of what is there.
const REQUEST: u16 = 0x01 | 0x04;
const MAKE: u16 = 0x100 | 0x400;

/// Attributes of an address.
const ADDRESS: u16 = 1;
const LOCAL_ADDRESS: u16 = 2;

/// A flag of an IPv6 address that is not to be asked for on the link before it is used: nobody else is there.
const NO_DETECTION: u8 = 0x02;

/// Attributes of a route.
const ROUTE_DESTINATION: u16 = 1;
const ROUTE_INTERFACE: u16 = 4;
const ROUTE_METRIC: u16 = 6;

/// What a route is: of the main table, made by a program, to what is reached without a router, for one destination each.
const ROUTE_KIND: [u8; 4] = [254, 4, 253, 1];

/// How far back a route stands behind others to the same subnet: a network that the machine is on itself comes first.
const METRIC: u32 = 5270;

/// Longest answer: the kernel's word on a request, with the request.
const ANSWER_BYTES_MAX: usize = 4096;

/// A connection to the kernel, which answers each request at once.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(super) fn connect() -> io::Result<Self> {
        let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, kind, flags, None)?;
        Ok(Self { socket, sequence: 0 })
    }

    pub(super) fn add_address(&mut self, interface: u32, address: IpNet) -> io::Result<()> {
        self.ask(NEW_ADDRESS, MAKE, &encode_address(interface, address))
    }

    pub(super) fn remove_address(&mut self, interface: u32, address: IpNet) -> io::Result<()> {
        self.ask(REMOVE_ADDRESS, 0, &encode_address(interface, address))
    }

    pub(super) fn add_route(&mut self, interface: u32, route: IpNet) -> io::Result<()> {
        self.ask(NEW_ROUTE, MAKE, &encode_route(interface, route))
    }

    pub(super) fn remove_route(&mut self, interface: u32, route: IpNet) -> io::Result<()> {
        self.ask(REMOVE_ROUTE, 0, &encode_route(interface, route))
    }

    /// Sends a request, and returns what the kernel says to it.
    pub(super) fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = encode(kind, REQUEST | flags, self.sequence, body);
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::net::sendto(&self.socket, &request, SendFlags::empty(), &kernel)?;
        let mut answer = [0; ANSWER_BYTES_MAX];
        loop {
            let (_, length) = rustix::net::recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
            let answer = answer.get(..length).ok_or(io::ErrorKind::InvalidData)?;
            if let Some(done) = parse_answer(answer, self.sequence) {
                return done;
            }
        }
    }
}

/// A message with its header.
fn encode(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).expect("invariant: requests are short");
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes().into_iter().chain(flags.to_ne_bytes()));
    message.extend(sequence.to_ne_bytes().into_iter().chain([0; 4]));
    message.extend(body);
    message
}

fn encode_address(interface: u32, address: IpNet) -> Vec<u8> {
    let flags = if address.addr().is_ipv6() { NO_DETECTION } else { 0 };
    let mut body = vec![family(address), address.prefix_len(), flags, 0];
    body.extend(interface.to_ne_bytes());
    for kind in [LOCAL_ADDRESS, ADDRESS] {
        push_attribute(&mut body, kind, &octets(address.addr()));
    }
    body
}

fn encode_route(interface: u32, route: IpNet) -> Vec<u8> {
    let mut body = vec![family(route), route.prefix_len(), 0, 0];
    body.extend(ROUTE_KIND.into_iter().chain([0; 4]));
    push_attribute(&mut body, ROUTE_DESTINATION, &octets(route.network()));
    push_attribute(&mut body, ROUTE_METRIC, &METRIC.to_ne_bytes());
    push_attribute(&mut body, ROUTE_INTERFACE, &interface.to_ne_bytes());
    body
}

/// Adds an attribute; all there are here are multiples of four bytes long, as they have to begin.
fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("invariant: attributes are short");
    body.extend(length.to_ne_bytes().into_iter().chain(kind.to_ne_bytes()));
    body.extend(value);
}

fn family(net: IpNet) -> u8 {
    let family = if net.addr().is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    u8::try_from(family.as_raw()).expect("invariant: families of IP are small numbers")
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// What the kernel says to the request of that number, if it is that.
fn parse_answer(message: &[u8], sequence: u32) -> Option<io::Result<()>> {
    let (header, body) = message.split_first_chunk::<16>()?;
    let [.., k0, k1, _, _, s0, s1, s2, s3, _, _, _, _] = *header;
    let is_it = u32::from_ne_bytes([s0, s1, s2, s3]) == sequence;
    if !is_it || u16::from_ne_bytes([k0, k1]) != ERROR {
        return None;
    }
    Some(match i32::from_ne_bytes(*body.first_chunk()?) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
    })
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    /// What `ip` of iproute2 6.1 sends, traced, but for the sequence number.
    #[track_caller]
    fn check(message: &[u8], traced: &str) {
        let hex: Vec<String> = message.iter().map(|byte| format!("{byte:02x}")).collect();
        let traced: Vec<&str> = traced.split_whitespace().collect();
        assert_eq!(hex, traced);
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("a net")
    }

    #[test]
    fn addresses_are_added_as_ip_does() {
        let body = encode_address(2, net("100.64.0.1/10"));
        check(
            &encode(NEW_ADDRESS, REQUEST | MAKE, 7, &body),
            "28 00 00 00 14 00 05 05 07 00 00 00 00 00 00 00 02 0a 00 00 02 00 00 00
             08 00 02 00 64 40 00 01 08 00 01 00 64 40 00 01",
        );
        let body = encode_address(2, net("fd7a:115c:a1e0::1/48"));
        check(
            &encode(NEW_ADDRESS, REQUEST | MAKE, 7, &body),
            "40 00 00 00 14 00 05 05 07 00 00 00 00 00 00 00 0a 30 02 00 02 00 00 00
             14 00 02 00 fd 7a 11 5c a1 e0 00 00 00 00 00 00 00 00 00 01
             14 00 01 00 fd 7a 11 5c a1 e0 00 00 00 00 00 00 00 00 00 01",
        );
    }

    #[test]
    fn routes_are_added_as_ip_does() {
        let body = encode_route(2, net("192.0.2.0/24"));
        check(
            &encode(NEW_ROUTE, REQUEST | MAKE, 7, &body),
            "34 00 00 00 18 00 05 05 07 00 00 00 00 00 00 00 02 18 00 00 fe 04 fd 01 00 00 00 00
             08 00 01 00 c0 00 02 00 08 00 06 00 96 14 00 00 08 00 04 00 02 00 00 00",
        );
    }

    #[test]
    fn answers_are_found_by_their_number_and_errors_are_told() {
        let answer = |code: i32| encode(ERROR, 0, 7, &code.to_ne_bytes());
        assert!(parse_answer(&answer(0), 7).is_some_and(|done| done.is_ok()));
        assert!(parse_answer(&answer(0), 8).is_none());
        assert!(parse_answer(&encode(NEW_ROUTE, 0, 7, &[0; 4]), 7).is_none());
        assert!(parse_answer(&answer(0)[..19], 7).is_none());
        let refused = parse_answer(&answer(-1), 7).expect("an answer").expect_err("an error");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert!(parse_answer(&answer(i32::MIN), 7).is_some_and(|done| done.is_err()));
    }
}
