//! One rule, compiled: who, in which protocols, where to, and with which capabilities.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_wire::{CapGrant, CapMap, FilterRule, NetPortRange, PortRange};
use thiserror::Error;

use crate::address::{AddressRange, AddressSet, parse_addresses};
use crate::packet::{ICMPV4, ICMPV6, Icmp, Packet, SCTP, TCP, Transport, UDP};

/// Bad entries of a chunk that are told: the first ones, for one says what the control server does wrong.
pub const BAD_ENTRIES_MAX: usize = 16;

/// The protocols of a rule that names none.
const DEFAULT_PROTOCOLS: [u8; 4] = [TCP, UDP, ICMPV4, ICMPV6];

/// What marks a source that is a node capability.
const CAPABILITY_PREFIX: &str = "cap:";

/// An entry of a rule that says nothing and was skipped; the rest of its rule holds.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("rule {rule}, {entry:?}: {error}")]
pub struct BadEntry {
    /// The rule's position in its chunk, from 0.
    pub rule: usize,
    /// The entry as it was written.
    pub entry: Arc<str>,
    /// What is wrong with it.
    pub error: EntryError,
}

/// What is wrong with an entry of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EntryError {
    /// It has none of the forms that addresses have.
    #[error("not an address, a prefix, a range or *")]
    Address,
    /// A prefix whose address is longer than the prefix.
    #[error("the prefix has host bits")]
    HostBits,
    /// A range from high to low, or from one family to the other.
    #[error("the range has no addresses")]
    Range,
    /// A capability without a name.
    #[error("the capability has no name")]
    CapabilityName,
    /// A capability as a destination.
    #[error("a destination cannot be a capability")]
    CapabilityDestination,
    /// Ports from high to low.
    #[error("the ports end before they begin")]
    Ports,
    /// A number that no IP protocol can have.
    #[error("not an ip protocol")]
    Protocol,
}

/// The bad entries met so far, at most [`BAD_ENTRIES_MAX`].
#[derive(Debug, Default)]
pub(crate) struct BadEntries {
    rule: usize,
    pub(crate) told: Vec<BadEntry>,
}

impl BadEntries {
    fn tell(&mut self, entry: Arc<str>, error: EntryError) {
        if self.told.len() < BAD_ENTRIES_MAX {
            self.told.push(BadEntry { rule: self.rule, entry, error });
        }
    }
}

/// What a packet asks to have open.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    /// A port in a protocol.
    Port(u8, u16),
    /// All ports in a protocol: it has none of its own.
    AllPorts(u8),
    /// Any port in any protocol: who may reach something may ask whether it is there.
    AnyPort,
}

impl Wanted {
    /// What a rule must open for the packet, or none if it needs no rule.
    ///
    /// Source: tailscale `wgengine/filter/filter.go`, `runIn4` and `runIn6`.
    pub(crate) fn by(packet: &Packet) -> Option<Self> {
        let port = packet.destination.port();
        match packet.transport {
            Transport::Tcp { is_syn: true } => Some(Self::Port(TCP, port)),
            Transport::Udp => Some(Self::Port(UDP, port)),
            Transport::Sctp => Some(Self::Port(SCTP, port)),
            Transport::Other(protocol) => Some(Self::AllPorts(protocol)),
            Transport::Icmp(Icmp::Other) => Some(Self::AnyPort),
            // Answers, whose questions are not remembered: TCP and ICMP drop what they did not ask for. A TSMP
            // message is for the node itself. A later fragment is of use only where the first one was let in.
            Transport::Tcp { is_syn: false }
            | Transport::Icmp(Icmp::EchoReply | Icmp::Error)
            | Transport::Tsmp
            | Transport::LaterFragment => None,
        }
    }
}

/// One rule, compiled.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) sources: AddressSet,
    /// Node capabilities that make a source, too.
    pub(crate) source_capabilities: Box<[Arc<str>]>,
    protocols: ProtocolSet,
    destinations: Box<[Destination]>,
    grants: Box<[CapGrant]>,
}

#[derive(Debug)]
struct Destination {
    addresses: AddressRange,
    ports: PortRange,
}

impl Rule {
    /// Compiles the rule at a position of its chunk.
    pub(crate) fn compile(rule: &FilterRule, position: usize, bad: &mut BadEntries) -> Self {
        bad.rule = position;
        let protocols = compile_protocols(&rule.ip_proto, bad);
        let (sources, source_capabilities) = compile_sources(&rule.src_ips, bad);
        let destinations = compile_destinations(&rule.dst_ports, bad);
        Self {
            sources,
            source_capabilities,
            protocols,
            destinations: if protocols.is_empty() { Box::default() } else { destinations },
            grants: rule.cap_grant.clone().into(),
        }
    }

    /// Whether it can let any packet in.
    pub(crate) fn has_destinations(&self) -> bool {
        !self.destinations.is_empty()
    }

    /// Whether it can grant any application capability.
    pub(crate) fn has_grants(&self) -> bool {
        !self.grants.is_empty()
    }

    /// Whether it opens to its sources what is wanted at a destination.
    pub(crate) fn opens(&self, wanted: Wanted, destination: IpAddr) -> bool {
        let is_in_protocol = match wanted {
            Wanted::Port(protocol, _) | Wanted::AllPorts(protocol) => {
                self.protocols.contains(protocol)
            }
            Wanted::AnyPort => true,
        };
        let has_ports = |ports: PortRange| match wanted {
            Wanted::Port(_, port) => (ports.first..=ports.last).contains(&port),
            Wanted::AllPorts(_) => ports == PortRange::ANY,
            Wanted::AnyPort => true,
        };
        let opens = |to: &Destination| has_ports(to.ports) && to.addresses.contains(destination);
        is_in_protocol && self.destinations.iter().any(opens)
    }

    /// Whether a source has one of the node capabilities that make a source.
    pub(crate) fn admits_capability_of(
        &self,
        source: IpAddr,
        has_capability: impl Fn(IpAddr, &str) -> bool,
    ) -> bool {
        self.source_capabilities.iter().any(|capability| has_capability(source, capability))
    }

    /// Adds the application capabilities that it grants to its sources at a destination.
    pub(crate) fn grant(&self, destination: IpAddr, granted: &mut CapMap) {
        let here = |grant: &&CapGrant| grant.dsts.iter().any(|net| net.contains(&destination));
        for grant in self.grants.iter().filter(here) {
            let flags = grant.caps.iter().map(|name| (name, &None));
            for (name, values) in flags.chain(&grant.cap_map).filter(|(name, _)| !name.is_empty()) {
                let all = granted.entry(name.clone()).or_default();
                if let Some(values) = values {
                    all.get_or_insert_default().extend_from_slice(values);
                }
            }
        }
    }
}

fn compile_protocols(numbers: &[i32], bad: &mut BadEntries) -> ProtocolSet {
    if numbers.is_empty() {
        return DEFAULT_PROTOCOLS.into_iter().collect();
    }
    let parsed = numbers.iter().filter_map(|number| {
        let protocol = u8::try_from(*number).ok();
        if protocol.is_none() {
            bad.tell(number.to_string().into(), EntryError::Protocol);
        }
        protocol
    });
    parsed.collect()
}

fn compile_sources(entries: &[Arc<str>], bad: &mut BadEntries) -> (AddressSet, Box<[Arc<str>]>) {
    let mut ranges = Vec::with_capacity(entries.len());
    let mut capabilities = Vec::new();
    for entry in entries {
        let parsed = match entry.strip_prefix(CAPABILITY_PREFIX) {
            Some("") => Err(EntryError::CapabilityName),
            Some(capability) => {
                capabilities.push(capability.into());
                Ok(())
            }
            None => parse_addresses(entry, &mut ranges),
        };
        if let Err(error) = parsed {
            bad.tell(Arc::clone(entry), error);
        }
    }
    (ranges.into_iter().collect(), capabilities.into())
}

fn compile_destinations(entries: &[NetPortRange], bad: &mut BadEntries) -> Box<[Destination]> {
    let mut destinations = Vec::with_capacity(entries.len());
    for NetPortRange { ip, ports } in entries {
        let mut ranges = Vec::with_capacity(2);
        let parsed = if ip.starts_with(CAPABILITY_PREFIX) {
            Err(EntryError::CapabilityDestination)
        } else if ports.first > ports.last {
            Err(EntryError::Ports)
        } else {
            parse_addresses(ip, &mut ranges)
        };
        if let Err(error) = parsed {
            bad.tell(Arc::clone(ip), error);
        }
        let ranges = ranges.into_iter();
        destinations.extend(ranges.map(|addresses| Destination { addresses, ports: *ports }));
    }
    destinations.into()
}

/// IP protocols, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct ProtocolSet([u64; 4]);

impl ProtocolSet {
    fn contains(self, protocol: u8) -> bool {
        self.0[usize::from(protocol / 64)] & (1 << (protocol % 64)) != 0
    }

    fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl FromIterator<u8> for ProtocolSet {
    fn from_iter<I: IntoIterator<Item = u8>>(protocols: I) -> Self {
        let mut set = Self::default();
        for protocol in protocols {
            set.0[usize::from(protocol / 64)] |= 1 << (protocol % 64);
        }
        set
    }
}
