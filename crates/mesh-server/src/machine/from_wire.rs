//! From the wire to the domain. Together with `mesh-netmap`'s `to_wire.rs` the only place where both are known.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use mesh_model::{AuthId, Hostinfo, Location, NodeId, PreauthKeyId, Service, truncate_to_millis};
use mesh_state::{NodeUpdate, Registration};
use mesh_wire as wire;

use super::Channel;

/// Longest text that is kept of any field of a hostinfo, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// Longest SSH host key that is kept, in bytes: RSA keys of 8192 bits fit.
const SSH_KEY_BYTES_MAX: usize = 2048;

/// A register request from the machine of a channel. `preauth_key` is the key whose secret it presented.
pub(crate) fn registration(
    request: &wire::RegisterRequest,
    channel: &Channel,
    preauth_key: Option<PreauthKeyId>,
    followup: Option<AuthId>,
    fresh_auth_id: AuthId,
) -> Registration {
    Registration {
        machine_key: channel.machine_key,
        subnet: channel.source.and_then(subnet),
        node_key: request.node_key,
        old_node_key: request.old_node_key.non_zero().filter(|old| *old != request.node_key),
        network_lock_key: request.nl_key,
        preauth_key,
        expiry: request.expiry.map(truncate_to_millis),
        followup,
        fresh_auth_id,
        ephemeral: request.ephemeral,
        hostinfo: request.hostinfo.as_deref().map(hostinfo).unwrap_or_default(),
        capability_version: request.version.0,
    }
}

/// The network that waiting logins are counted by; none for this machine itself.
fn subnet(source: IpAddr) -> Option<IpNet> {
    let prefix_len = if source.is_ipv4() { 24 } else { 48 };
    let subnet = IpNet::new(source, prefix_len).ok()?.trunc();
    (!source.is_loopback()).then_some(subnet)
}

/// A lite update of a node.
pub(crate) fn node_update(node: NodeId, request: &wire::MapRequest) -> NodeUpdate {
    let net_info = request.hostinfo.as_deref().and_then(|hostinfo| hostinfo.net_info.as_ref());
    NodeUpdate {
        node,
        node_key: request.node_key,
        disco_key: request.disco_key,
        hostinfo: request.hostinfo.as_deref().map(hostinfo),
        endpoints: request.endpoints.iter().copied().filter(is_useful).collect(),
        home_derp: net_info.map(|net_info| net_info.preferred_derp.0).filter(|region| *region != 0),
        capability_version: request.version.0,
    }
}

/// Whether peers can do anything with an endpoint: a link-local one means nothing outside its link.
fn is_useful(endpoint: &SocketAddr) -> bool {
    match endpoint.ip() {
        IpAddr::V4(v4) => !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_unspecified() && !v6.is_unicast_link_local(),
    }
}

/// What is kept of a client's host information. Texts go on to other clients as they are, so what the Rust
/// client cannot read (anything that JSON would have to escape) is left out here.
fn hostinfo(hostinfo: &wire::Hostinfo) -> Hostinfo {
    let mut routable_ips = hostinfo.routable_ips.clone();
    routable_ips.sort();
    routable_ips.dedup();
    Hostinfo {
        hostname: text(&hostinfo.hostname),
        os: text(&hostinfo.os),
        os_version: text(&hostinfo.os_version),
        ipn_version: text(&hostinfo.ipn_version),
        app: text(&hostinfo.app),
        device_model: text(&hostinfo.device_model),
        services: hostinfo.services.iter().map(service).collect(),
        routable_ips,
        request_tags: hostinfo.request_tags.iter().map(|tag| text(tag)).collect(),
        ssh_host_keys: hostinfo
            .ssh_host_keys
            .iter()
            .map(|key| cut(key, SSH_KEY_BYTES_MAX))
            .collect(),
        location: hostinfo.location.as_ref().map(location),
        sharee_node: hostinfo.sharee_node,
        app_connector: hostinfo.app_connector,
        peer_relay: hostinfo.peer_relay,
        shields_up: hostinfo.shields_up,
    }
}

fn service(service: &wire::Service) -> Service {
    Service {
        proto: text(&service.proto),
        port: service.port,
        description: text(&service.description),
    }
}

fn location(location: &wire::Location) -> Location {
    Location {
        country: text(&location.country),
        country_code: text(&location.country_code),
        city: text(&location.city),
        city_code: text(&location.city_code),
        latitude: location.latitude,
        longitude: location.longitude,
        priority: location.priority,
    }
}

fn text(text: &str) -> String {
    cut(text, TEXT_BYTES_MAX)
}

/// A text of at most `bytes_max` bytes, without characters that JSON escapes.
fn cut(text: &str, bytes_max: usize) -> String {
    let mut kept = String::with_capacity(text.len().min(bytes_max));
    for c in text.chars().filter(|c| !c.is_control() && !matches!(c, '"' | '\\')) {
        if kept.len() + c.len_utf8() > bytes_max {
            break;
        }
        kept.push(c);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_break_strict_clients_are_mended() {
        assert_eq!(text("a\"b\\c\nd\u{0}é"), "abcdé");
        assert_eq!(text(&"é".repeat(200)).len(), 256);
    }

    #[test]
    fn endpoints_that_mean_nothing_to_peers_are_left_out() {
        let request = wire::MapRequest {
            endpoints: ["1.2.3.4:5", "[fe80::1]:5", "0.0.0.0:5", "[2001:db8::1]:5"]
                .map(|endpoint| endpoint.parse().expect("an endpoint"))
                .to_vec(),
            ..wire::MapRequest::default()
        };
        let update = node_update(NodeId(1), &request);
        assert_eq!(update.endpoints.len(), 2);
        assert_eq!(update.home_derp, None);
    }
}
