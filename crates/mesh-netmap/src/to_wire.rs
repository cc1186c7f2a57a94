//! From the domain to the wire. Together with `mesh-server`'s `from_wire.rs` the only place where both are known.

mod policy;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_model::{Node, NodeId, Owner, Tailnet, Timestamp, User, UserId};
use mesh_state::Snapshot;
use mesh_wire as wire;

use crate::MapContext;

pub use policy::PacketFilters;
pub(crate) use policy::{filter_delta, no_filter, ssh_delta, ssh_policy, whole_filter};

/// Node attributes of every node, without values: Taildrop among a user's own nodes, the SSH server, and for that the
/// environment variables of rules with `acceptEnv`. Without rules the SSH server lets nobody in.
///
/// Attributes that say who administers the tailnet are not among them: clients only word hints by them, and link to a
/// console that is not ours.
///
/// Source: tailscale `tailcfg/nodecap/nodecap.go`.
const SELF_CAPABILITIES: [&str; 3] =
    ["https://tailscale.com/cap/file-sharing", "https://tailscale.com/cap/ssh", "ssh-env-vars"];

/// The attribute of a peer that a viewer may use as its exit node: clients suggest only such.
///
/// Source: tailscale `ipn/ipnlocal/local.go`, `suggestExitNode`.
const SUGGEST_EXIT_NODE: &str = "suggest-exit-node";

/// The text that names a node for good in clients' preferences.
pub fn stable_id(id: NodeId) -> String {
    format!("n{id}")
}

/// What viewers may see differently of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerAspect {
    /// Whether its IPv4 address is hidden.
    pub hides_ipv4: bool,
    /// Routes that go through it, exit routes included; sorted.
    pub routes: Vec<IpNet>,
}

/// How a viewer sees a peer. Viewers of a class see it alike.
pub fn peer_aspect(snapshot: &Snapshot, viewer: NodeId, peer: NodeId) -> PeerAspect {
    let policy = &snapshot.policy;
    PeerAspect {
        hides_ipv4: policy.hides_ipv4(viewer) || policy.hides_ipv4(peer),
        routes: policy.routes_shown(viewer, peer),
    }
}

/// A node as a viewer sees it that is its peer.
pub fn peer(snapshot: &Snapshot, viewer: NodeId, node: &Node, context: &MapContext) -> wire::Node {
    peer_as(node, &peer_aspect(snapshot, viewer, node.id), snapshot.at, context)
}

/// A node at `at`, as peers see it.
///
/// An expired one has neither endpoints nor home, for clients work out its expiry only when they rebuild
/// their whole netmap. One that is online has no last-seen time: the Rust client takes both for neither.
pub fn peer_as(
    node: &Node,
    aspect: &PeerAspect,
    at: Timestamp,
    context: &MapContext,
) -> wire::Node {
    let is_shown = |address: &IpAddr| !aspect.hides_ipv4 || address.is_ipv6();
    let addresses: Vec<IpAddr> = node.addresses().filter(is_shown).collect();
    let routes = &aspect.routes;
    let expired = node.is_expired(at);
    let online = node.session.is_some() && !expired;
    let is_exit_node = routes.iter().any(|route| route.prefix_len() == 0);
    wire::Node {
        endpoints: if expired { Vec::new() } else { node.endpoints.clone() },
        home_derp: if expired { wire::DerpRegionId(0) } else { home_region(node, context) },
        disco_key: node.disco_key,
        hostinfo: Some(Arc::new(peer_hostinfo(node))),
        online: Some(online),
        last_seen: if online { None } else { node.last_seen_at },
        expired,
        allowed_ips: allowed_ips(&addresses, routes),
        primary_routes: subnets(routes),
        cap_map: is_exit_node.then(|| (SUGGEST_EXIT_NODE.to_owned(), None)).into_iter().collect(),
        ..base_node(node, addresses, context)
    }
}

/// A node as it sees itself. What it tells the server and knows better is left out, so that its own updates
/// never come back to it as a change that makes it rebuild its netmap.
pub fn self_node(snapshot: &Snapshot, node: &Node, context: &MapContext) -> wire::Node {
    let hostinfo = wire::Hostinfo {
        os: node.hostinfo.os.clone(),
        hostname: node.hostinfo.hostname.clone(),
        ..wire::Hostinfo::default()
    };
    let policy = &snapshot.policy;
    let known = policy.node(node.id);
    let addresses = match known {
        Some(_) => policy.addresses_seen(node.id, node.id),
        None => node.addresses().collect(),
    };
    let routes = known.map(|known| &*known.active_routes).unwrap_or_default();
    let mut cap_map: wire::CapMap =
        SELF_CAPABILITIES.iter().map(|name| ((*name).to_owned(), None)).collect();
    cap_map.extend(policy::capabilities(&policy.attributes(node.id)));
    wire::Node {
        machine: node.machine_key,
        hostinfo: Some(Arc::new(hostinfo)),
        expired: node.is_expired(snapshot.at),
        allowed_ips: allowed_ips(&addresses, routes),
        primary_routes: policy.primary_routes(node.id),
        cap_map,
        ..base_node(node, addresses, context)
    }
}

/// What a node and its peers are told alike, but for the addresses.
fn base_node(node: &Node, addresses: Vec<IpAddr>, context: &MapContext) -> wire::Node {
    wire::Node {
        id: wire::NodeId(node.id.0.into()),
        stable_id: stable_id(node.id),
        name: format!("{}.{}.", node.given_name, context.base_domain),
        user: wire::UserId(node.owner.user().0),
        key: node.node_key,
        key_expiry: node.expires_at,
        addresses: addresses.into_iter().map(IpNet::from).collect(),
        created: Some(node.created_at),
        cap: wire::CapabilityVersion(node.capability_version),
        tags: node.owner.tags().iter().map(ToString::to_string).collect(),
        machine_authorized: true,
        ..wire::Node::default()
    }
}

/// Addresses and routes; `None` for a node without routes, which is its addresses.
fn allowed_ips(addresses: &[IpAddr], routes: &[IpNet]) -> Option<Vec<IpNet>> {
    let all = addresses.iter().copied().map(IpNet::from).chain(routes.iter().copied());
    (!routes.is_empty()).then(|| all.collect())
}

fn subnets(routes: &[IpNet]) -> Vec<IpNet> {
    routes.iter().copied().filter(|route| route.prefix_len() > 0).collect()
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
