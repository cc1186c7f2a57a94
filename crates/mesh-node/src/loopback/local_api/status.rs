//! A node's status in the shape of Tailscale's.

use jiff::SignedDuration;
use mesh_wire::{DerpMap, DerpRegionId};

use super::super::ipnstate::{BackendState, PeerStatus, Status, TailnetStatus};
use crate::host::wall_clock;
use crate::{NetcheckReport, Node, State};

/// What a node tells of itself, put together.
pub(super) fn status(told: crate::Status, node: &Node, netcheck: &NetcheckReport) -> Status {
    let addresses = node.ips();
    let (backend_state, auth_url, health) = backend_state(node.state(), !addresses.is_empty());
    let derp_map = netcheck.derp_map.as_deref();
    let suffix = told.node.as_ref().and_then(|node| node.name.split_once('.'));
    let suffix = suffix.map_or("", |(_, suffix)| suffix.trim_end_matches('.')).to_owned();
    let own = told.node.as_ref().map(|node| PeerStatus {
        relay: told.home.map(|home| region_code(derp_map, home)).unwrap_or_default(),
        online: true,
        ..PeerStatus::new(node)
    });
    let peers = told.peers.iter().map(|peer| (peer.node.key, peer_status(peer, derp_map)));
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        tun: node.has_device,
        backend_state,
        auth_url,
        tailscale_ips: addresses,
        current_tailnet: own.is_some().then(|| TailnetStatus {
            name: told.tailnet.clone(),
            magic_dns_suffix: suffix.clone(),
        }),
        self_node: own,
        health,
        magic_dns_suffix: suffix,
        peer: peers.collect(),
        user: told.users,
    }
}

/// How far the node has come, where somebody has to log in, and what is wrong.
fn backend_state(state: State, has_joined: bool) -> (BackendState, String, Vec<String>) {
    let (state, health) = match state {
        State::NeedsLogin(url) => return (BackendState::NeedsLogin, url, Vec::new()),
        State::NeedsMachineAuth => (BackendState::NeedsMachineAuth, None),
        State::LoggedOut => (BackendState::NeedsLogin, Some("node is logged out".to_owned())),
        State::Refused(why) => {
            (BackendState::NeedsLogin, Some(format!("control server refuses the node: {why}")))
        }
        // Peers are reached without the control server, too.
        State::Starting if has_joined => {
            (BackendState::Running, Some("control server is not reached".to_owned()))
        }
        State::Running if has_joined => (BackendState::Running, None),
        State::Starting | State::Running => (BackendState::Starting, None),
    };
    (state, String::new(), health.into_iter().collect())
}

fn peer_status(told: &crate::PeerStatus, derp_map: Option<&DerpMap>) -> PeerStatus {
    let handshake = told.last_handshake.and_then(|ago| SignedDuration::try_from(ago).ok());
    let relay = told.relay.unwrap_or(told.node.home_derp);
    PeerStatus {
        cur_addr: told.direct.map(|address| address.to_string()).unwrap_or_default(),
        relay: region_code(derp_map, relay),
        rx_bytes: told.rx_bytes,
        tx_bytes: told.tx_bytes,
        last_handshake: handshake.and_then(|ago| wall_clock().checked_sub(ago).ok()),
        active: told.is_active,
        ..PeerStatus::new(&told.node)
    }
}

/// The code of a region; of one that the map does not know, its number, and nothing of region 0, which is none.
pub(super) fn region_code(derp_map: Option<&DerpMap>, id: DerpRegionId) -> String {
    let region = derp_map.and_then(|map| map.regions.as_ref()?.get(&id));
    match region {
        Some(region) => region.region_code.clone(),
        None if id == DerpRegionId::default() => String::new(),
        None => id.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use mesh_wire::DerpRegion;

    use super::*;

    #[test]
    fn a_node_that_has_joined_runs_without_its_control_server() {
        let (state, _, health) = backend_state(State::Starting, true);
        assert_eq!((state, health.len()), (BackendState::Running, 1));
        assert_eq!(backend_state(State::Running, true).0, BackendState::Running);
        assert_eq!(backend_state(State::Running, false).0, BackendState::Starting);
    }

    #[test]
    fn a_refusal_is_told_in_the_words_of_the_control_server() {
        let (state, url, health) = backend_state(State::Refused("no such key".to_owned()), false);
        assert_eq!((state, url.as_str()), (BackendState::NeedsLogin, ""));
        assert_eq!(health, ["control server refuses the node: no such key"]);
    }

    #[test]
    fn regions_are_told_by_code_if_they_have_one() {
        let region = DerpRegion { region_code: "fra".to_owned(), ..DerpRegion::default() };
        let map =
            DerpMap { regions: Some([(DerpRegionId(4), region)].into()), ..DerpMap::default() };
        assert_eq!(region_code(Some(&map), DerpRegionId(4)), "fra");
        assert_eq!(region_code(Some(&map), DerpRegionId(5)), "5");
        assert_eq!(region_code(None, DerpRegionId(0)), "");
    }
}
