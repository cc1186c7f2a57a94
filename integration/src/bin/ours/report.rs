//! What the node knows of itself and of others.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use mesh_integration::{Peer, Status, Whois};
use mesh_node::{Node, PeerStatus, PingKind, State};
use mesh_wire::{CapMap, DerpRegionId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// What `whois` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WhoisArgs {
    /// `IP` or `IP:port`.
    addr: String,
}

/// What `ping` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PingArgs {
    ip: IpAddr,
}

/// The node's state and whom it sees. As a stock client it runs once it has a relay, and goes on with what it was told while it
/// has no session.
pub(crate) async fn status(node: &Node, was_up: bool) -> Result<Status> {
    let status = node.status().await?;
    let (state, auth_url, error) = match node.state() {
        State::Running | State::Starting if was_up => ("Running", None, None),
        State::Running | State::Starting => ("Starting", None, None),
        State::NeedsLogin(url) => ("NeedsLogin", Some(url), None),
        State::NeedsMachineAuth => ("NeedsMachineAuth", None, None),
        State::Refused(error) => ("NeedsLogin", None, Some(error)),
        State::LoggedOut => ("NeedsLogin", None, None),
    };
    let own = status.node.as_ref().map(|own| {
        let cap_map = capabilities(&own.cap_map)?;
        anyhow::Ok(Peer { relay: region(status.home), online: true, cap_map, ..peer(own) })
    });
    let users = &status.users;
    let peers = status.peers.iter().map(|found| Peer {
        user: users.get(&found.node.user).map(|profile| profile.login_name.clone()),
        cur_addr: cur_addr(found),
        tx_bytes: found.tx_bytes,
        ..peer(&found.node)
    });
    Ok(Status {
        state: state.to_owned(),
        auth_url,
        error,
        logs_disabled: true,
        own: own.transpose()?,
        peers: peers.collect(),
    })
}

fn peer(node: &mesh_wire::Node) -> Peer {
    Peer {
        key: node.key.to_string(),
        name: full_name(node),
        addresses: addresses(node),
        tags: node.tags.clone(),
        online: node.online.unwrap_or_default(),
        expired: node.expired,
        relay: region(Some(node.home_derp)),
        primary_routes: node.primary_routes.iter().map(ToString::to_string).collect(),
        ..Peer::default()
    }
}

fn addresses(node: &mesh_wire::Node) -> Vec<IpAddr> {
    node.addresses.iter().map(ipnet::IpNet::addr).collect()
}

fn full_name(node: &mesh_wire::Node) -> String {
    node.name.trim_end_matches('.').to_owned()
}

/// Its number: this client tells no codes. Empty when there is none.
fn region(region: Option<DerpRegionId>) -> String {
    region.filter(|region| region.0 > 0).map(|region| region.to_string()).unwrap_or_default()
}

fn capabilities(cap_map: &CapMap) -> Result<Map<String, Value>> {
    Ok(serde_json::from_value(serde_json::to_value(cap_map)?)?)
}

/// Whose address it is.
pub(crate) async fn who_is(node: &Node, args: &WhoisArgs) -> Result<Value> {
    let address = match args.addr.parse::<SocketAddr>() {
        Ok(address) => address.ip(),
        Err(_) => args.addr.parse().context("not an address")?,
    };
    let found = node.who_is(address).await?.context("no match for IP:port")?;
    let whois = Whois {
        key: found.node.key.to_string(),
        name: full_name(&found.node),
        user: found.user_profile.map(|profile| profile.login_name).unwrap_or_default(),
        cap_map: capabilities(&found.cap_map)?,
    };
    Ok(serde_json::to_value(whois)?)
}

/// How a peer is reached.
pub(crate) async fn ping(node: &Node, args: &PingArgs) -> Result<Value> {
    let pong = node.ping(args.ip, PingKind::Disco).await?;
    Ok(json!({
        "endpoint": pong.direct,
        "derp_region": pong.relay.map(|relay| relay.to_string()),
        "latency_ms": pong.latency.as_secs_f64() * 1e3,
    }))
}

/// The peer that has an address.
pub(crate) async fn peer_at(node: &Node, address: IpAddr) -> Result<PeerStatus> {
    let peers = node.status().await?.peers;
    let has_address = |peer: &PeerStatus| addresses(&peer.node).contains(&address);
    let found = peers.into_iter().find(has_address);
    found.with_context(|| format!("no peer has the address {address}"))
}

/// The UDP address over which a peer is reached; empty when relayed or idle.
pub(crate) fn cur_addr(peer: &PeerStatus) -> String {
    peer.direct.map(|address| address.to_string()).unwrap_or_default()
}
