//! From the domain to the wire. Together with `mesh-server`'s `from_wire.rs` the only place where both are known.

use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::{Node, NodeId, Owner, Tailnet, Timestamp, User, UserId};
use mesh_policy::legacy::{Destination, FilterRule, Source};
use mesh_wire as wire;

use crate::MapContext;

/// Node attributes of every node. Values: none.
///
/// Source: tailscale `tailcfg/nodecap`: Taildrop among a user's own nodes.
const SELF_CAPABILITIES: [&str; 1] = ["https://tailscale.com/cap/file-sharing"];

/// The text that names a node for good in clients' preferences.
pub fn stable_id(id: NodeId) -> String {
    format!("n{id}")
}

/// A node as its peers see it at `at`.
///
/// An expired one has neither endpoints nor home, for clients work out its expiry only when they rebuild
/// their whole netmap. One that is online has no last-seen time: the Rust client takes both for neither.
pub fn peer(node: &Node, at: Timestamp, context: &MapContext) -> wire::Node {
    let expired = node.is_expired(at);
    let online = node.session.is_some() && !expired;
    wire::Node {
        endpoints: if expired { Vec::new() } else { node.endpoints.clone() },
        home_derp: if expired { wire::DerpRegionId(0) } else { home_region(node, context) },
        disco_key: node.disco_key,
        hostinfo: Some(Arc::new(peer_hostinfo(node))),
        online: Some(online),
        last_seen: if online { None } else { node.last_seen_at },
        expired,
        ..base_node(node, context)
    }
}

/// A node as it sees itself. What it tells the server and knows better is left out, so that its own updates
/// never come back to it as a change that makes it rebuild its netmap.
pub fn self_node(node: &Node, at: Timestamp, context: &MapContext) -> wire::Node {
    let hostinfo = wire::Hostinfo {
        os: node.hostinfo.os.clone(),
        hostname: node.hostinfo.hostname.clone(),
        ..wire::Hostinfo::default()
    };
    wire::Node {
        machine: node.machine_key,
        hostinfo: Some(Arc::new(hostinfo)),
        expired: node.is_expired(at),
        cap_map: SELF_CAPABILITIES.iter().map(|name| ((*name).to_owned(), None)).collect(),
        ..base_node(node, context)
    }
}

/// What a node and its peers are told alike.
fn base_node(node: &Node, context: &MapContext) -> wire::Node {
    let addresses: Vec<IpNet> = node.addresses().map(IpNet::from).collect();
    let routes = served_routes(node);
    let allowed_ips =
        (!routes.is_empty()).then(|| addresses.iter().chain(&routes).copied().collect());
    wire::Node {
        id: wire::NodeId(node.id.0.into()),
        stable_id: stable_id(node.id),
        name: format!("{}.{}.", node.given_name, context.base_domain),
        user: wire::UserId(node.owner.user().0),
        key: node.node_key,
        key_expiry: node.expires_at,
        allowed_ips,
        addresses,
        primary_routes: routes.into_iter().filter(|route| route.prefix_len() > 0).collect(),
        created: Some(node.created_at),
        cap: wire::CapabilityVersion(node.capability_version),
        tags: node.owner.tags().iter().map(ToString::to_string).collect(),
        machine_authorized: true,
        ..wire::Node::default()
    }
}

/// The routes that a node offers and an admin approved.
fn served_routes(node: &Node) -> Vec<IpNet> {
    let offered = &node.hostinfo.routable_ips;
    node.approved_routes.iter().filter(|route| offered.contains(route)).copied().collect()
}

fn home_region(node: &Node, context: &MapContext) -> wire::DerpRegionId {
    let known = node.home_derp.map(wire::DerpRegionId);
    known.or_else(|| context.only_region()).unwrap_or_default()
}

/// What peers need of a machine. Each volatile field that were sent on would cost every peer an update.
fn peer_hostinfo(node: &Node) -> wire::Hostinfo {
    let hostinfo = &node.hostinfo;
    wire::Hostinfo {
        os: hostinfo.os.clone(),
        hostname: hostinfo.hostname.clone(),
        services: hostinfo
            .services
            .iter()
            .filter(|service| service.proto.starts_with("peerapi"))
            .map(|service| wire::Service {
                proto: service.proto.clone(),
                port: service.port,
                description: service.description.clone(),
            })
            .collect(),
        routable_ips: hostinfo.routable_ips.clone(),
        ssh_host_keys: hostinfo.ssh_host_keys.clone(),
        sharee_node: hostinfo.sharee_node,
        app_connector: hostinfo.app_connector,
        peer_relay: hostinfo.peer_relay,
        location: hostinfo.location.as_ref().map(|location| wire::Location {
            country: location.country.clone(),
            country_code: location.country_code.clone(),
            city: location.city.clone(),
            city_code: location.city_code.clone(),
            latitude: location.latitude,
            longitude: location.longitude,
            priority: location.priority,
        }),
        ..wire::Hostinfo::default()
    }
}

/// The user that tagged nodes are shown to belong to.
pub fn tagged_devices() -> wire::UserProfile {
    wire::UserProfile {
        id: wire::UserId(UserId::TAGGED_DEVICES.0),
        login_name: "tagged-devices".to_owned(),
        display_name: "Tagged Devices".to_owned(),
        ..wire::UserProfile::default()
    }
}

/// What clients are told of a user. A user that is gone shows as its bare id rather than not at all.
pub fn user_profile(tailnet: &Tailnet, id: UserId) -> wire::UserProfile {
    if id == UserId::TAGGED_DEVICES {
        return tagged_devices();
    }
    tailnet.user(id).map_or_else(
        || wire::UserProfile {
            id: wire::UserId(id.0),
            login_name: id.to_string(),
            display_name: id.to_string(),
            ..wire::UserProfile::default()
        },
        |user| profile_of(user),
    )
}

fn profile_of(user: &User) -> wire::UserProfile {
    wire::UserProfile {
        id: wire::UserId(user.id.0),
        login_name: user.login_name().to_owned(),
        display_name: user.display_name().to_owned(),
        profile_pic_url: user.profile_pic_url.clone(),
        groups: Vec::new(),
    }
}

/// The user of a register response; equal to the profile in the map, which clients rely on.
pub fn wire_user(tailnet: &Tailnet, owner: &Owner) -> wire::User {
    let profile = user_profile(tailnet, owner.user());
    wire::User {
        id: profile.id,
        display_name: profile.display_name,
        profile_pic_url: profile.profile_pic_url,
        created: tailnet.user(owner.user()).map(|user| user.created_at),
    }
}

/// The login of a register response.
pub fn wire_login(tailnet: &Tailnet, owner: &Owner) -> wire::Login {
    let profile = user_profile(tailnet, owner.user());
    let provider = tailnet.user(owner.user()).map(|user| user.provider.clone());
    wire::Login {
        id: wire::LoginId(profile.id.0),
        provider: provider.unwrap_or_default(),
        login_name: profile.login_name,
        display_name: profile.display_name,
        profile_pic_url: profile.profile_pic_url,
    }
}

/// A packet filter's rules.
pub(crate) fn packet_filter(rules: &[FilterRule]) -> Vec<wire::FilterRule> {
    rules.iter().map(filter_rule).collect()
}

fn filter_rule(rule: &FilterRule) -> wire::FilterRule {
    wire::FilterRule {
        src_ips: rule
            .sources
            .iter()
            .map(|source| match source {
                Source::Any => "*".to_owned(),
                Source::Prefix(prefix) => prefix.to_string(),
            })
            .collect(),
        dst_ports: rule.destinations.iter().map(net_port_range).collect(),
        ..wire::FilterRule::default()
    }
}

fn net_port_range(destination: &Destination) -> wire::NetPortRange {
    wire::NetPortRange {
        ip: destination.prefix.map_or_else(|| "*".to_owned(), |prefix| prefix.to_string()),
        ports: wire::PortRange { first: destination.ports.first, last: destination.ports.last },
    }
}
