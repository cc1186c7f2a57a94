//! A gateway that maps ports: what it answers to NAT-PMP (RFC 6886) and PCP (RFC 6887), byte for byte.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Which of a gateway's mappings a client has: its port, and whether it was asked for by PCP.
type Asked = (u16, bool);

/// The result of those who do not want to.
const NOT_AUTHORIZED: u8 = 2;

/// The result of those who do not know the packet's version.
const UNSUPPORTED_VERSION: u8 = 1;

/// What becomes of a protocol's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Willing {
    /// The gateway does not know the protocol. It says so if it knows the other.
    No,
    /// It says that the protocol is there, but maps nothing.
    Refuses,
    /// It does what it is asked to.
    Yes,
}

/// The gateway of one client.
#[derive(Debug)]
pub struct Gateway {
    /// Whether it speaks NAT-PMP.
    pub nat_pmp: Willing,
    /// Whether it speaks PCP.
    pub pcp: Willing,
    /// Its public address.
    pub public: Ipv4Addr,
    /// Seconds since it was started.
    pub epoch: u32,
    /// For how many seconds it maps ports at most.
    pub lifetime_max: u32,
    /// The public port of each mapping.
    pub mappings: BTreeMap<Asked, u16>,
}

impl Gateway {
    /// A gateway that has run for a day.
    pub fn new(nat_pmp: Willing, pcp: Willing) -> Self {
        Self {
            nat_pmp,
            pcp,
            public: Ipv4Addr::new(203, 0, 113, 7),
            epoch: 86_400,
            lifetime_max: u32::MAX,
            mappings: BTreeMap::new(),
        }
    }

    /// Forgets everything, as one does whose power was cut.
    pub fn restart(&mut self) {
        self.epoch = 0;
        self.mappings.clear();
    }

    /// What it answers to a datagram, if anything.
    pub fn answer(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        match request {
            _ if (self.nat_pmp, self.pcp) == (Willing::No, Willing::No) => None,
            [0, opcode, ..] if self.nat_pmp == Willing::No => {
                Some(self.pcp_header(*opcode, UNSUPPORTED_VERSION, 0))
            }
            [2, opcode, ..] if self.pcp == Willing::No => {
                Some(self.nat_pmp_header(*opcode, UNSUPPORTED_VERSION))
            }
            [0, 0] => {
                let mut answer = self.nat_pmp_header(0, 0);
                answer.extend(self.public.octets());
                Some(answer)
            }
            [0, 1, 0, 0, internal @ .., p0, p1, l0, l1, l2, l3] => {
                let internal: [u8; 2] = internal.try_into().expect("a NAT-PMP request");
                let lifetime = u32::from_be_bytes([*l0, *l1, *l2, *l3]);
                if self.nat_pmp == Willing::Refuses {
                    return Some(self.nat_pmp_header(1, NOT_AUTHORIZED));
                }
                let port = [u16::from_be_bytes(internal), u16::from_be_bytes([*p0, *p1])];
                let (external, lifetime) = self.map(port, false, lifetime);
                let mut answer = self.nat_pmp_header(1, 0);
                answer.extend(internal);
                answer.extend(external.to_be_bytes());
                answer.extend(lifetime.to_be_bytes());
                Some(answer)
            }
            [2, 0, ..] => Some(self.pcp_header(0, 0, 0)),
            [2, 1, ..] => Some(self.answer_pcp_map(request)),
            _ => None,
        }
    }

    fn answer_pcp_map(&mut self, request: &[u8]) -> Vec<u8> {
        let request: &[u8; 60] = request.try_into().expect("a PCP request to map");
        let number = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
        let lifetime = u32::from_be_bytes([request[4], request[5], request[6], request[7]]);
        assert_eq!(request[36], 17, "UDP");
        if self.pcp == Willing::Refuses {
            return [&self.pcp_header(1, NOT_AUTHORIZED, 30)[..], &request[24..]].concat();
        }
        let (external, lifetime) = self.map([number(40), number(42)], true, lifetime);
        let mut answer = self.pcp_header(1, 0, lifetime);
        answer.extend(&request[24..42]);
        answer.extend(external.to_be_bytes());
        answer.extend(self.public.to_ipv6_mapped().octets());
        answer
    }

    /// Maps a port, to the public one that is suggested unless that is 0, and says for how long; 0 ends it.
    fn map(&mut self, [internal, suggested]: [u16; 2], is_pcp: bool, lifetime: u32) -> (u16, u32) {
        if lifetime == 0 {
            self.mappings.remove(&(internal, is_pcp));
            return (0, 0);
        }
        let external = if suggested == 0 { internal ^ 0x8000 } else { suggested };
        self.mappings.insert((internal, is_pcp), external);
        (external, lifetime.min(self.lifetime_max))
    }

    fn nat_pmp_header(&self, opcode: u8, result: u8) -> Vec<u8> {
        let mut header = vec![0, opcode | 0x80, 0, result];
        header.extend(self.epoch.to_be_bytes());
        header
    }

    fn pcp_header(&self, opcode: u8, result: u8, lifetime: u32) -> Vec<u8> {
        let mut header = vec![2, opcode | 0x80, 0, result];
        header.extend(lifetime.to_be_bytes());
        header.extend(self.epoch.to_be_bytes());
        header.extend([0; 12]);
        header
    }
}
