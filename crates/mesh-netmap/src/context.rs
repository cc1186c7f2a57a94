//! What every netmap holds that is not the tailnet's own: its name, DNS and relays.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh_wire::{DerpMap, DerpRegionId, DnsConfig, Resolver};

/// Configuration that goes into netmaps. Replaced whole when the relays change.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MapContext {
    /// What follows the first label of every node's name; no dot at either end.
    pub base_domain: String,
    /// The relays.
    pub derp_map: Arc<DerpMap>,
    /// DNS settings, the same for every node.
    pub dns: DnsConfig,
}

impl MapContext {
    /// The region of every node that has not told its home yet, if there is but one: peers can then reach it
    /// at once instead of after its next network check, some 20 s later.
    pub(crate) fn only_region(&self) -> Option<DerpRegionId> {
        let mut regions = self.derp_map.regions.iter().flatten();
        let (only, _) = regions.next()?;
        regions.next().is_none().then_some(*only)
    }
}

/// Split-DNS routes that make a client answer for the tailnet itself: its domain, and the reverse zones of
/// its prefixes, all without name servers. Prefixes that do not end at a label's edge are widened to several
/// zones.
///
/// Source: tailscale `tailcfg.DNSConfig.Routes`; headscale `hscontrol/util/dns.go` for the zones.
pub fn magic_dns_routes(
    base_domain: &str,
    v4: Option<Ipv4Net>,
    v6: Option<Ipv6Net>,
) -> BTreeMap<String, Vec<Resolver>> {
    let zones_v4 = v4.into_iter().flat_map(|prefix| zones(IpNet::V4(prefix), 8));
    let zones_v6 = v6.into_iter().flat_map(|prefix| zones(IpNet::V6(prefix), 4));
    zones_v4
        .chain(zones_v6)
        .chain([base_domain.to_owned()])
        .map(|zone| (zone, Vec::new()))
        .collect()
}

/// The reverse zones that together cover a prefix, one label being `label_bits` of the address.
fn zones(prefix: IpNet, label_bits: u8) -> Vec<String> {
    let whole = prefix.prefix_len().div_ceil(label_bits).max(1);
    let edge = (whole * label_bits).min(prefix.max_prefix_len());
    let Ok(parts) = prefix.subnets(edge) else { return Vec::new() };
    parts.map(|part| zone(part, whole)).collect()
}

/// The reverse zone of a prefix that ends after `labels` labels.
fn zone(prefix: IpNet, labels: u8) -> String {
    let (labels_of_address, suffix): (Vec<String>, _) = match prefix {
        IpNet::V4(prefix) => {
            (prefix.network().octets().iter().map(u8::to_string).collect(), "in-addr.arpa")
        }
        IpNet::V6(prefix) => {
            let nibbles =
                prefix.network().octets().into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
            (nibbles.map(|nibble| format!("{nibble:x}")).collect(), "ip6.arpa")
        }
    };
    let mut zone: Vec<&str> =
        labels_of_address.iter().take(usize::from(labels)).rev().map(String::as_str).collect();
    zone.push(suffix);
    zone.join(".")
}
