//! Rules as they are written, for those who explain and compare them. The engine has its own form of them.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::policy::{Acl, AclDestination, Grant, Policy, PortRange, SelectorId};

/// Where a rule stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RulePlace {
    /// Entry of `grants`.
    Grant {
        /// Number of the entry, from 0.
        index: usize,
        /// Line of the entry, from 1.
        line: u32,
    },
    /// Entry of `acls`.
    Acl {
        /// Number of the entry, from 0.
        index: usize,
        /// Line of the entry, from 1.
        line: u32,
    },
    /// Entry of `ssh`.
    Ssh {
        /// Number of the entry, from 0.
        index: usize,
        /// Line of the entry, from 1.
        line: u32,
    },
    /// The rule of a policy that has neither `acls` nor `grants`: everybody reaches everybody.
    Default,
}

impl fmt::Display for RulePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grant { index, line } => write!(f, "grants[{index}] (line {line})"),
            Self::Acl { index, line } => write!(f, "acls[{index}] (line {line})"),
            Self::Ssh { index, line } => write!(f, "ssh[{index}] (line {line})"),
            Self::Default => f.write_str("the default rule (there are neither acls nor grants)"),
        }
    }
}

/// As an object: `rule` such as `acls[3]`, and `line` where there is one.
impl Serialize for RulePlace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Place {
            rule: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            line: Option<u32>,
        }
        let (rule, line) = match self {
            Self::Grant { index, line } => (format!("grants[{index}]"), Some(*line)),
            Self::Acl { index, line } => (format!("acls[{index}]"), Some(*line)),
            Self::Ssh { index, line } => (format!("ssh[{index}]"), Some(*line)),
            Self::Default => ("default".to_owned(), None),
        };
        Place { rule, line }.serialize(serializer)
    }
}

/// A rule of `grants` or `acls`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum WrittenRule<'a> {
    Grant(usize, &'a Grant),
    Acl(usize, &'a Acl),
    /// The rule of a policy that has neither.
    Default(&'a Grant),
}

/// The rules of a policy in the order in which they count; `default` if it has neither acls nor grants.
pub(crate) fn written_rules<'a>(policy: &'a Policy, default: &'a Grant) -> Vec<WrittenRule<'a>> {
    if policy.allows_all() {
        return vec![WrittenRule::Default(default)];
    }
    let grants = policy.grants.iter().flatten().enumerate();
    let acls = policy.acls.iter().flatten().enumerate();
    grants
        .map(|(index, grant)| WrittenRule::Grant(index, grant))
        .chain(acls.map(|(index, acl)| WrittenRule::Acl(index, acl)))
        .collect()
}

impl<'a> WrittenRule<'a> {
    pub(crate) fn place(self) -> RulePlace {
        match self {
            Self::Grant(index, grant) => RulePlace::Grant { index, line: grant.line },
            Self::Acl(index, acl) => RulePlace::Acl { index, line: acl.line },
            Self::Default(_) => RulePlace::Default,
        }
    }

    pub(crate) fn sources(self) -> &'a [SelectorId] {
        match self {
            Self::Grant(_, grant) | Self::Default(grant) => &grant.src,
            Self::Acl(_, acl) => &acl.src,
        }
    }

    pub(crate) fn postures(self) -> &'a [Arc<str>] {
        match self {
            Self::Grant(_, grant) | Self::Default(grant) => &grant.src_posture,
            Self::Acl(_, acl) => &acl.src_posture,
        }
    }

    /// Tags of the routers that carry the traffic.
    pub(crate) fn via(self) -> &'a [SelectorId] {
        match self {
            Self::Grant(_, grant) | Self::Default(grant) => &grant.via,
            Self::Acl(..) => &[],
        }
    }

    /// Its destinations. [`Self::ports`] knows them by their number.
    pub(crate) fn destinations(self) -> impl Iterator<Item = SelectorId> + use<'a> {
        let (selectors, acl): (&[SelectorId], &[AclDestination]) = match self {
            Self::Grant(_, grant) | Self::Default(grant) => (&grant.dst, &[]),
            Self::Acl(_, acl) => (&[], &acl.dst),
        };
        let of_acl = acl.iter().map(|destination| destination.selector);
        selectors.iter().copied().chain(of_acl)
    }

    /// Protocols and ports that it opens towards a destination; no protocol is the default set.
    pub(crate) fn ports(self, destination: usize) -> Vec<(Option<u8>, &'a [PortRange])> {
        match self {
            Self::Grant(_, grant) | Self::Default(grant) => {
                grant.ip.iter().map(|ip| (ip.proto, &ip.ports[..])).collect()
            }
            Self::Acl(_, acl) => vec![(acl.proto, &acl.dst[destination].ports[..])],
        }
    }

    /// Names of the capabilities that it gives.
    pub(crate) fn capabilities(self) -> impl Iterator<Item = &'a Arc<str>> {
        let app = match self {
            Self::Grant(_, grant) | Self::Default(grant) => &grant.app[..],
            Self::Acl(..) => &[],
        };
        app.iter().map(|(name, _)| name)
    }
}

/// Whether ports opened under one protocol are open for a packet of another; none is the default set on both sides.
pub(crate) fn opens(rule: Option<u8>, packet: Option<u8>) -> bool {
    let is_default = |proto: u8| DEFAULT_PROTOCOLS.contains(&proto);
    match (rule, packet) {
        (None, None) => true,
        (None, Some(proto)) | (Some(proto), None) => is_default(proto),
        (Some(rule), Some(packet)) => rule == packet,
    }
}

/// TCP, UDP and both ICMPs: what a rule that names no protocol stands for.
pub(crate) const DEFAULT_PROTOCOLS: [u8; 4] = [6, 17, 1, 58];

/// A protocol for people: its name if everybody knows it, else its number.
pub(crate) fn protocol_name(proto: u8) -> String {
    match proto {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "ipv6-icmp".to_owned(),
        132 => "sctp".to_owned(),
        number => number.to_string(),
    }
}

/// Ports of a protocol, as the `ip` of a grant writes them; of the default set without a protocol.
pub(crate) fn ports_text(proto: Option<u8>, ports: PortRange) -> String {
    match proto {
        Some(proto) => format!("{}:{ports}", protocol_name(proto)),
        None => ports.to_string(),
    }
}
