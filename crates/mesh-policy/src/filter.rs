//! Packet filter rules: what a node lets in.

use ipnet::IpNet;

/// Where packets come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Every peer.
    Any,
    /// Peers in a prefix.
    Prefix(IpNet),
}

/// Ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };
}

/// Where packets go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The addresses, or every address.
    pub prefix: Option<IpNet>,
    /// The ports.
    pub ports: PortRange,
}

/// Lets packets from any of the sources to any of the destinations in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterRule {
    /// Who may send.
    pub sources: Vec<Source>,
    /// To where.
    pub destinations: Vec<Destination>,
}

impl FilterRule {
    /// Lets everything in.
    pub fn allow_all() -> Self {
        Self {
            sources: vec![Source::Any],
            destinations: vec![Destination { prefix: None, ports: PortRange::ALL }],
        }
    }
}
