//! What a gateway is asked and what it answers, in bytes. All numbers are big-endian.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::time::Duration;

/// The UDP port of gateways for both protocols.
pub const GATEWAY_PORT: u16 = 5351;

/// The longest answer; what is beyond it is nothing that is read here.
///
/// Source: RFC 6887, section 7.
pub const ANSWER_BYTES_MAX: usize = 1100;

/// Bytes of the number by which a gateway knows again who asked for a mapping by PCP.
pub const NONCE_BYTES: usize = 12;

const NAT_PMP_VERSION: u8 = 0;
const PCP_VERSION: u8 = 2;

const NAT_PMP_ADDRESS: u8 = 0;
const NAT_PMP_MAP_UDP: u8 = 1;
const PCP_ANNOUNCE: u8 = 0;
const PCP_MAP: u8 = 1;

/// What an answer has in addition in its opcode.
const IS_ANSWER: u8 = 0x80;

/// The result, in both protocols, with which a gateway refuses the other protocol's packets. It says nothing of its own.
const UNSUPPORTED_VERSION: u16 = 1;

/// UDP, by IANA's number.
const PROTOCOL_UDP: u8 = 17;

/// A protocol for port mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    NatPmp,
    Pcp,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    /// Its address, as the gateway sees it.
    pub(crate) own: Ipv4Addr,
    /// The port that the gateway is to lead to.
    pub(crate) port: u16,
    pub(crate) nonce: [u8; NONCE_BYTES],
}

/// What a gateway says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) service: Service,
    /// Seconds since the gateway has lost or made up its mind.
    pub(crate) epoch: u32,
    pub(crate) said: Said,
}

/// What stands in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// The service is there. NAT-PMP tells the gateway's public address with it.
    Here { address: Option<Ipv4Addr> },
    /// The port is mapped for a while. PCP tells the public address with it.
    Mapped { address: Option<Ipv4Addr>, port: u16, lifetime: Duration },
    /// It does not want to, or cannot.
    Refused,
}

impl Service {
    /// Asks whether the service is there.
    pub(crate) fn probe(self, client: &Client) -> Vec<u8> {
        match self {
            Self::NatPmp => vec![NAT_PMP_VERSION, NAT_PMP_ADDRESS],
            Self::Pcp => pcp_header(PCP_ANNOUNCE, Duration::ZERO, client),
        }
    }

    /// Asks for a mapping, if possible to the public address and port `suggested`. Without a lifetime, gives a mapping back.
    pub(crate) fn map(
        self,
        client: &Client,
        suggested: SocketAddrV4,
        lifetime: Duration,
    ) -> Vec<u8> {
        let [internal, external] = [client.port, suggested.port()].map(u16::to_be_bytes);
        match self {
            Self::NatPmp => {
                let mut bytes = vec![NAT_PMP_VERSION, NAT_PMP_MAP_UDP, 0, 0];
                bytes.extend([internal, external].as_flattened());
                bytes.extend(seconds(lifetime));
                bytes
            }
            Self::Pcp => {
                let mut bytes = pcp_header(PCP_MAP, lifetime, client);
                bytes.extend(client.nonce);
                bytes.extend([PROTOCOL_UDP, 0, 0, 0]);
                bytes.extend([internal, external].as_flattened());
                bytes.extend(suggested.ip().to_ipv6_mapped().octets());
                bytes
            }
        }
    }
}

fn pcp_header(opcode: u8, lifetime: Duration, client: &Client) -> Vec<u8> {
    let mut bytes = vec![PCP_VERSION, opcode, 0, 0];
    bytes.extend(seconds(lifetime));
    bytes.extend(client.own.to_ipv6_mapped().octets());
    bytes
}

fn seconds(span: Duration) -> [u8; 4] {
    u32::try_from(span.as_secs()).unwrap_or(u32::MAX).to_be_bytes()
}

impl Answer {
    /// Reads what a gateway answers to a client; `None` if it is not that, or tells nothing.
    pub(crate) fn parse(bytes: &[u8], client: &Client) -> Option<Self> {
        match *bytes.first()? {
            NAT_PMP_VERSION => parse_nat_pmp(bytes, client),
            PCP_VERSION => parse_pcp(bytes, client),
            _ => None,
        }
    }
}

/// Source: RFC 6886, sections 3.2 and 3.3.
fn parse_nat_pmp(bytes: &[u8], client: &Client) -> Option<Answer> {
    let (&[_, opcode, r0, r1, e0, e1, e2, e3], body) = bytes.split_first_chunk::<8>()?;
    let result = u16::from_be_bytes([r0, r1]);
    let said = match (opcode ^ IS_ANSWER, result, body) {
        (_, UNSUPPORTED_VERSION, _) => return None,
        (NAT_PMP_ADDRESS, 0, &[a, b, c, d]) => {
            Said::Here { address: Some(Ipv4Addr::new(a, b, c, d)) }
        }
        (NAT_PMP_MAP_UDP, 0, &[i0, i1, x0, x1, l0, l1, l2, l3])
            if u16::from_be_bytes([i0, i1]) == client.port =>
        {
            let (port, lifetime) = (u16::from_be_bytes([x0, x1]), parse_seconds([l0, l1, l2, l3]));
            Said::Mapped { address: None, port, lifetime }
        }
        (NAT_PMP_ADDRESS | NAT_PMP_MAP_UDP, 0, _) => return None,
        (NAT_PMP_ADDRESS | NAT_PMP_MAP_UDP, _, _) => Said::Refused,
        _ => return None,
    };
    let epoch = u32::from_be_bytes([e0, e1, e2, e3]);
    Some(Answer { service: Service::NatPmp, epoch, said })
}

/// Source: RFC 6887, sections 7.2, 11.1 and 14.1.
fn parse_pcp(bytes: &[u8], client: &Client) -> Option<Answer> {
    let (header, body) = bytes.split_first_chunk::<24>()?;
    let &[_, opcode, _, result, l0, l1, l2, l3, e0, e1, e2, e3, ..] = header;
    let said = match (opcode ^ IS_ANSWER, u16::from(result)) {
        (_, UNSUPPORTED_VERSION) => return None,
        (PCP_ANNOUNCE, 0) => Said::Here { address: None },
        (PCP_MAP, _) => {
            let (address, port) = parse_pcp_mapping(body, client)?;
            if result == 0 {
                let (address, lifetime) = (address.to_ipv4_mapped()?, [l0, l1, l2, l3]);
                Said::Mapped { address: Some(address), port, lifetime: parse_seconds(lifetime) }
            } else {
                Said::Refused
            }
        }
        (PCP_ANNOUNCE, _) => Said::Refused,
        _ => return None,
    };
    let epoch = u32::from_be_bytes([e0, e1, e2, e3]);
    Some(Answer { service: Service::Pcp, epoch, said })
}

/// The public address and port in what the client has asked for.
fn parse_pcp_mapping(body: &[u8], client: &Client) -> Option<(Ipv6Addr, u16)> {
    let (nonce, body) = body.split_first_chunk::<NONCE_BYTES>()?;
    let (&[protocol, _, _, _, i0, i1, x0, x1], body) = body.split_first_chunk::<8>()?;
    let address = Ipv6Addr::from(*body.first_chunk::<16>()?);
    let is_asked_for = (*nonce, protocol) == (client.nonce, PROTOCOL_UDP)
        && u16::from_be_bytes([i0, i1]) == client.port;
    is_asked_for.then_some((address, u16::from_be_bytes([x0, x1])))
}

fn parse_seconds(bytes: [u8; 4]) -> Duration {
    Duration::from_secs(u32::from_be_bytes(bytes).into())
}
