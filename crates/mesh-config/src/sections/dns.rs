//! `dns`: what clients resolve.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use crate::document::{Content, Node};
use crate::finding::Report;
use crate::key::section;
use crate::types::{DomainName, Nameserver};
use crate::value::{Reading, Scalar, Value, quote, read_all};

section! {
    /// What clients resolve.
    pub struct Dns {
        /// Whether clients resolve the names of nodes (MagicDNS).
        pub magic_dns: bool = "dns.magic_dns", "true";
        /// Domain under which nodes have their names. The default lies in .internal, which is reserved
        /// for private use and will never be delegated. A domain that other servers use is hidden from
        /// clients; `server_url` must not lie in it.
        pub base_domain: Option<DomainName> = "dns.base_domain", "tailnet.internal";
        /// Whether `nameservers.global` replace the clients' own nameservers; has no effect without any.
        pub override_local_dns: bool = "dns.override_local_dns", "true";
        /// Further domains that clients complete names with, after `base_domain`.
        pub search_domains: Vec<DomainName> = "dns.search_domains", "[]";
        /// Further names that clients resolve, types A and AAAA, each such as
        /// `{name: grafana.example.com, type: A, value: 100.64.0.3}`.
        pub extra_records: Vec<ExtraRecord> = "dns.extra_records", "[]";
    }
    sections {
        /// Who answers what the tailnet does not know.
        pub nameservers: Nameservers;
    }
}

section! {
    /// Who answers what the tailnet does not know.
    pub struct Nameservers {
        /// Nameservers for every name: IP addresses or DNS-over-HTTPS URLs.
        pub global: Vec<Nameserver> = "dns.nameservers.global", "[]";
        /// Nameservers for single domains, such as `{corp.example.com: [10.0.0.53]}`.
        pub split: BTreeMap<DomainName, Vec<Nameserver>> = "dns.nameservers.split", "{}";
    }
}

/// A name with an address; the record's type follows from the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraRecord {
    /// The name.
    pub name: DomainName,
    /// An IPv4 address for an A record, an IPv6 address for AAAA.
    pub address: IpAddr,
}

impl Value for Vec<ExtraRecord> {
    fn read(node: &Node, reading: &mut Reading<'_>) -> Option<Self> {
        match &node.content {
            Content::List(records) => read_all(records, reading, read_record),
            Content::Null | Content::Text(_) | Content::Map(_) => reading.fault(
                node,
                "a list of records is wanted, each with name, type and value".to_owned(),
            ),
        }
    }

    fn node(text: &str) -> Result<Node, String> {
        Node::from_yaml(text)
    }
}

fn read_record(node: &Node, reading: &mut Reading<'_>) -> Option<ExtraRecord> {
    let (Some(name), Some(address)) = (node.find("name"), node.find("value")) else {
        return reading.fault(node, "a record needs name, type and value".to_owned());
    };
    let name = DomainName::read(name, reading);
    let address = IpAddr::read(address, reading);
    let (name, address) = name.zip(address)?;
    let Some(kind) = node.find("type") else { return Some(ExtraRecord { name, address }) };
    let fits = match RecordType::read(kind, reading)? {
        RecordType::A => address.is_ipv4(),
        RecordType::Aaaa => address.is_ipv6(),
    };
    if fits {
        Some(ExtraRecord { name, address })
    } else {
        let message =
            format!("{} is not an address of the record's type", quote(&address.to_string()));
        reading.fault(node, message)
    }
}

/// The types of records that clients answer.
enum RecordType {
    A,
    Aaaa,
}

impl Scalar for RecordType {
    const SHAPE: &'static str = "A or AAAA, the types that clients answer";

    fn from_text(text: &str, _base: &Path) -> Option<Self> {
        match text.to_ascii_uppercase().as_str() {
            "A" => Some(Self::A),
            "AAAA" => Some(Self::Aaaa),
            _ => None,
        }
    }
}

impl Dns {
    pub(crate) fn check(&self, report: &mut Report) {
        if self.magic_dns && self.base_domain.is_none() {
            let message = "must be set while dns.magic_dns is on, which makes names of it";
            report.error("dns.base_domain", message);
        }
        if self.override_local_dns
            && self.nameservers.global.is_empty()
            && report.is_given("dns.override_local_dns")
        {
            let message = "has no effect without dns.nameservers.global";
            report.warning("dns.override_local_dns", message);
        }
    }
}
