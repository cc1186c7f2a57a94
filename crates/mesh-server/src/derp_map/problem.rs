//! What clients would be misled by in a DERP map, told so that an operator can mend it.
//!
//! Source: tailscale `tailcfg/derpmap.go`; how its clients dial is in `derp/derphttp/derphttp_client.go`.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mesh_wire::{DerpNode, DerpRegion, DerpRegionId};
use rustls::pki_types::ServerName;

/// What a `CertName` begins with that pins a certificate.
pub(super) const PIN_PREFIX: &str = "sha256-raw:";

/// Hexadecimal digits of a pin.
const PIN_DIGITS: usize = 64;

/// What an address is that is not to be looked for.
const NO_ADDRESS: &str = "none";

/// What is wrong with a region or one of its nodes, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, by the key in the map.
    pub region: DerpRegionId,
    /// In which node, by its name, or its place if it has none.
    pub node: Option<String>,
    /// What is wrong, and the fix.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { region, node, what } = self;
        match node {
            Some(node) => write!(f, "region {region}, node {node}: {what}"),
            None => write!(f, "region {region}: {what}"),
        }
    }
}

/// Everything that is wrong with a map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join("; "))
    }
}

impl FromIterator<Problem> for Problems {
    fn from_iter<T: IntoIterator<Item = Problem>>(problems: T) -> Self {
        Self(problems.into_iter().collect())
    }
}

impl Problems {
    /// Looks through regions by their keys, and through scores.
    pub(super) fn find<'a>(
        regions: impl Iterator<Item = (DerpRegionId, &'a DerpRegion)>,
        scores: impl Iterator<Item = (&'a DerpRegionId, &'a f64)>,
    ) -> Self {
        let (mut problems, mut names) = (Self::default(), BTreeSet::new());
        for (id, region) in regions {
            for what in of_region(id, region) {
                problems.0.push(Problem { region: id, node: None, what });
            }
            for (place, node) in region.nodes.iter().enumerate() {
                let mut found = of_node(id, node);
                if !node.name.is_empty() && !names.insert(&node.name) {
                    found.push("another node has this name: give it one of its own".to_owned());
                }
                let shown = || match node.name.as_str() {
                    "" => format!("number {}", place + 1),
                    name => name.to_owned(),
                };
                let told = |what| Problem { region: id, node: Some(shown()), what };
                problems.0.extend(found.into_iter().map(told));
            }
        }
        for (id, score) in scores.filter(|(_, score)| !(score.is_finite() && **score > 0.0)) {
            let what = format!(
                "score {score} is no factor on a latency: below 1 favours the region, above 1 makes it seem farther"
            );
            problems.0.push(Problem { region: *id, node: None, what });
        }
        problems
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether something is wrong with a region.
    pub(super) fn concern(&self, region: DerpRegionId) -> bool {
        self.0.iter().any(|problem| problem.region == region)
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

fn of_region(key: DerpRegionId, region: &DerpRegion) -> Vec<String> {
    let id = region.region_id;
    let relays = region.nodes.iter().filter(|node| !node.stun_only).count();
    let problems = [
        (key.0 == 0).then(|| "0 is no region for clients: number it from 1 on".to_owned()),
        (id != key).then(|| format!("its regionid is {id}: make it {key}, or leave it out")),
        region.nodes.is_empty().then(|| {
            "it has no nodes: give it one, or make it `null`, which takes it out of the map"
                .to_owned()
        }),
        (relays == 0 && !region.nodes.is_empty()).then(|| {
            "all its nodes are stunonly, so whoever makes it their home is not reached: add a relay"
                .to_owned()
        }),
    ];
    problems.into_iter().flatten().collect()
}

fn of_node(region: DerpRegionId, node: &DerpNode) -> Vec<String> {
    let DerpNode { name, region_id, host_name, cert_name, .. } = node;
    let no_name = || format!("it has no name: give it one, such as {region}a");
    let problems = [
        name.is_empty().then(no_name),
        (*region_id != region)
            .then(|| format!("its regionid is {region_id}: make it {region}, or leave it out")),
        (!is_host(host_name)).then(|| {
            format!("hostname {host_name:?} is no host: name one that clients can look up, or an address")
        }),
        (!is_cert_name(cert_name)).then(|| {
            format!(
                "certname {cert_name:?} is neither a name nor {PIN_PREFIX} and the {PIN_DIGITS} digits of a \
                 certificate's SHA-256"
            )
        }),
        wrong_address("ipv4", &node.ipv4, |text| text.parse::<Ipv4Addr>().is_ok()),
        wrong_address("ipv6", &node.ipv6, |text| text.parse::<Ipv6Addr>().is_ok()),
        (node.ipv4 == NO_ADDRESS && node.ipv6 == NO_ADDRESS).then(|| {
            format!("ipv4 and ipv6 are both {NO_ADDRESS}, so nobody can reach it: allow one of them")
        }),
        (!node.stun_test_ip.is_empty() && node.stun_test_ip.parse::<IpAddr>().is_err())
            .then(|| format!("stuntestip {:?} is no address", node.stun_test_ip)),
        wrong_port("derpport", node.derp_port, "0 for 443"),
        (node.stun_port != -1)
            .then(|| wrong_port("stunport", node.stun_port, "0 for 3478, -1 for none"))
            .flatten(),
    ];
    problems.into_iter().flatten().collect()
}

fn is_host(text: &str) -> bool {
    ServerName::try_from(text).is_ok()
}

fn is_cert_name(text: &str) -> bool {
    match text.strip_prefix(PIN_PREFIX) {
        Some(pin) => pin.len() == PIN_DIGITS && pin.bytes().all(|digit| digit.is_ascii_hexdigit()),
        None => text.is_empty() || is_host(text),
    }
}

fn wrong_address(field: &str, text: &str, is_one: impl Fn(&str) -> bool) -> Option<String> {
    let is_right = text.is_empty() || text == NO_ADDRESS || is_one(text);
    (!is_right).then(|| {
        format!(
            "{field} {text:?} is no such address: write one, {NO_ADDRESS}, or nothing to have the hostname looked up"
        )
    })
}

fn wrong_port(field: &str, port: i32, defaults: &str) -> Option<String> {
    let is_right = u16::try_from(port).is_ok();
    (!is_right).then(|| format!("{field} {port} is no port: write one up to 65535, or {defaults}"))
}
