//! What a DERP map says of a relay.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use mesh_config::sections::DerpServer;
use mesh_wire::{DerpNode, DerpRegion, DerpRegionId};

use super::doors::Doors;

/// The port that clients try for the check of captive portals.
const PORT_80: u16 = 80;

/// How a map says that there is no STUN.
const NO_STUN: i32 = -1;

/// The relay as a node of its region. `port` is where clients reach its TLS.
pub(crate) fn node(
    settings: &DerpServer,
    name: String,
    host: &str,
    doors: &Doors,
    port: u16,
) -> DerpNode {
    let has_port_80 = doors.http.as_ref().map(SocketAddr::port) == Some(PORT_80);
    DerpNode {
        name,
        region_id: DerpRegionId(settings.region_id.into()),
        host_name: host.to_owned(),
        cert_name: doors.pin.clone().unwrap_or_default(),
        ipv4: address_text(settings.ipv4.map(IpAddr::V4), host, IpAddr::is_ipv4),
        ipv6: address_text(settings.ipv6.map(IpAddr::V6), host, IpAddr::is_ipv6),
        derp_port: port.into(),
        stun_port: doors.stun.map_or(NO_STUN, |address| address.port().into()),
        can_port_80: has_port_80,
        ..DerpNode::default()
    }
}

/// The region of which the relay is the only node that we know.
pub(crate) fn region(settings: &DerpServer, node: DerpNode) -> DerpRegion {
    DerpRegion {
        region_id: node.region_id,
        region_code: settings.region_code.clone(),
        region_name: settings.region_name.clone(),
        nodes: vec![node],
        ..DerpRegion::default()
    }
}

/// What the map says of an address family: the configured address, that of the host, or that there is none.
/// Unsaid, clients look for one and wait seconds for it; only a host's name can have both.
fn address_text(configured: Option<IpAddr>, host: &str, is_family: fn(&IpAddr) -> bool) -> String {
    match (configured, host.parse::<IpAddr>()) {
        (Some(address), _) => address.to_string(),
        (None, Ok(address)) if is_family(&address) => address.to_string(),
        (None, Ok(_)) => "none".to_owned(),
        (None, Err(_)) => String::new(),
    }
}

/// The region as a file of `derp.paths`, in YAML, with as much as is not its default.
pub(crate) fn to_yaml(region: &DerpRegion) -> String {
    let id = region.region_id.0;
    let mut yaml = format!(
        "regions:\n  {id}:\n    regionid: {id}\n    regioncode: {}\n    regionname: {}\n    nodes:\n",
        quoted(&region.region_code),
        quoted(&region.region_name),
    );
    for node in &region.nodes {
        let texts = [
            ("hostname", &node.host_name),
            ("certname", &node.cert_name),
            ("ipv4", &node.ipv4),
            ("ipv6", &node.ipv6),
        ];
        // Writing to a String cannot fail.
        let _ = writeln!(yaml, "      - name: {}\n        regionid: {id}", quoted(&node.name));
        for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            let _ = writeln!(yaml, "        {name}: {}", quoted(text));
        }
        let _ = writeln!(yaml, "        derpport: {}", node.derp_port);
        let _ = writeln!(yaml, "        stunport: {}", node.stun_port);
        if node.can_port_80 {
            let _ = writeln!(yaml, "        canport80: true");
        }
    }
    yaml
}

/// A text as YAML takes it whatever is in it: JSON's form.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mesh_config::Config;
    use mesh_server::derp_map::{DerpSource, merge};

    use super::*;

    #[test]
    fn what_is_printed_is_a_derp_map() {
        let mut settings = Config::defaults(Path::new("/data")).derp.server;
        settings.region_name = "Keller: \"links\" # 1".to_owned();
        settings.ipv4 = Some([192, 0, 2, 7].into());
        let address = |port| Some(SocketAddr::from(([0, 0, 0, 0], port)));
        for (host, http, stun) in [
            ("relay.example.com", address(80), address(3478)),
            ("192.0.2.7", None, None),
            ("2001:db8::1", address(8080), address(1)),
        ] {
            let pin = Some(format!("sha256-raw:{}", "ab".repeat(32)));
            let doors = Doors::of_addresses(http, stun, pin);
            let expected =
                region(&settings, node(&settings, "900a".to_owned(), host, &doors, 8443));
            let read = DerpSource::parse_sound(to_yaml(&expected).as_bytes()).expect("sound");
            let regions = merge(&[], &[read]).expect("a DERP map").regions.expect("regions");
            assert_eq!(regions.values().collect::<Vec<_>>(), [&expected]);
        }
    }
}
