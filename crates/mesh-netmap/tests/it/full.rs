//! The first message.

use mesh_model::{Hostinfo, NodeId};
use mesh_netmap::{MapContext, full};
use mesh_state::Command;
use mesh_testkit::disco_key;
use mesh_wire::{DerpRegionId, MapResponse, Node};

use crate::house::{ALICES, BOBS, House, LIFETIME, TAGGED, context_with};

fn full_in(house: &House, viewer: NodeId, context: &MapContext) -> MapResponse {
    full(house.newest(), viewer, context, house.time()).expect("the node is there")
}

fn full_of(house: &House, viewer: NodeId) -> MapResponse {
    full_in(house, viewer, &context_with([1, 2]))
}

fn ids(message: &MapResponse) -> Vec<u64> {
    message.peers.iter().map(|peer| peer.id.0).collect()
}

/// The one peer of a viewer.
fn peer_of(house: &House, viewer: NodeId) -> Node {
    let [peer] = <[Node; 1]>::try_from(full_of(house, viewer).peers).expect("one peer");
    peer
}

#[test]
fn first_message_holds_all_that_a_session_starts_with() {
    let mut house = House::new();
    let viewer = house.join(1);
    house.join_with(2, BOBS);
    let context = context_with([1, 2]);
    let message = full_in(&house, viewer, &context);
    assert_eq!(message.node.as_ref().map(|node| node.id.0), Some(1));
    assert_eq!(ids(&message), [2]);
    assert_eq!(message.derp_map.as_ref(), Some(&context.derp_map));
    assert_eq!(message.dns_config.as_ref(), Some(&context.dns));
    let filters: Vec<_> = message.packet_filters.values().map(Option::is_some).collect();
    assert_eq!(filters, [false, true], "all that went before, then one rule");
    let users: Vec<_> = message.user_profiles.iter().map(|user| &*user.login_name).collect();
    assert_eq!(users, ["alice", "bob"]);
    assert_eq!((&*message.domain, message.collect_services), ("tail.example", Some(false)));
    assert_eq!(message.control_time, Some(house.time()));
    assert!(message.debug.is_some_and(|debug| debug.disable_log_tail));
}

#[test]
fn there_is_no_netmap_of_a_node_that_is_not_there() {
    let house = House::new();
    assert_eq!(full(house.newest(), NodeId(1), &context_with([1]), house.time()), None);
}

#[test]
fn a_node_alone_is_told_of_no_list_of_peers() {
    let mut house = House::new();
    let viewer = house.join(1);
    let json = serde_json::to_string(&full_of(&house, viewer)).expect("it serializes");
    assert!(!json.contains(r#""Peers""#));
}

#[test]
fn a_node_is_hidden_until_it_has_a_disco_key() {
    let mut house = House::new();
    let viewer = house.join(1);
    let hidden = house.register(2, ALICES);
    assert_eq!(ids(&full_of(&house, viewer)), [0; 0]);
    assert_eq!(ids(&full_of(&house, hidden)), [0; 0], "nobody could answer it");
    house.must(house.update(hidden, |update| update.disco_key = disco_key(2)));
    assert_eq!(ids(&full_of(&house, viewer)), [2]);
}

#[test]
fn a_node_that_never_connected_is_offline_rather_than_unknown() {
    let mut house = House::new();
    let viewer = house.join(1);
    let node = house.register(2, ALICES);
    house.must(house.update(node, |update| update.disco_key = disco_key(2)));
    let peer = peer_of(&house, viewer);
    assert_eq!((peer.online, peer.last_seen), (Some(false), None));
}

#[test]
fn a_peer_says_when_it_was_last_seen_only_while_it_is_away() {
    let mut house = House::new();
    let (viewer, node) = (house.join(1), house.join(2));
    let peer = peer_of(&house, viewer);
    assert_eq!((peer.online, peer.last_seen), (Some(true), None));
    house.disconnect(node);
    let peer = peer_of(&house, viewer);
    assert_eq!((peer.online, peer.last_seen), (Some(false), Some(house.time())));
}

#[test]
fn an_expired_peer_cannot_be_reached() {
    let mut house = House::with_expiry();
    let (viewer, _) = (house.join_with(1, TAGGED), house.join(2));
    let peer = peer_of(&house, viewer);
    assert!(!peer.expired && !peer.endpoints.is_empty() && peer.home_derp == DerpRegionId(1));
    house.pass(LIFETIME);
    let peer = peer_of(&house, viewer);
    assert!(peer.expired && peer.endpoints.is_empty() && peer.home_derp == DerpRegionId(0));
    assert_eq!(peer.online, Some(false));
}

#[test]
fn an_expired_viewer_is_told_so_and_of_nobody_else() {
    let mut house = House::with_expiry();
    let (viewer, _) = (house.join(1), house.join_with(2, TAGGED));
    house.pass(LIFETIME);
    let message = full_of(&house, viewer);
    assert!(message.node.is_some_and(|node| node.expired));
    assert_eq!((message.peers, message.packet_filters), (vec![], [("*".to_owned(), None)].into()));
}

#[test]
fn a_home_that_is_not_known_yet_is_the_only_region() {
    let mut house = House::new();
    let viewer = house.join(1);
    let node = house.register(2, ALICES);
    house.connect(node);
    let home = |regions: &[u32]| {
        full_in(&house, viewer, &context_with(regions.iter().copied())).peers[0].home_derp
    };
    assert_eq!(home(&[7]), DerpRegionId(7));
    assert_eq!(home(&[7, 8]), DerpRegionId(0));
    assert_eq!(home(&[]), DerpRegionId(0));
}

#[test]
fn routes_count_once_they_are_offered_and_approved() {
    let mut house = House::new();
    let (viewer, router) = (house.join(1), house.join(2));
    let parse = |routes: &[&str]| -> Vec<ipnet::IpNet> {
        routes.iter().map(|route| route.parse().expect("a prefix")).collect()
    };
    let hostinfo = Hostinfo {
        routable_ips: parse(&["0.0.0.0/0", "10.0.0.0/8", "172.16.0.0/12", "::/0"]),
        ..house.node(router).hostinfo.clone()
    };
    house.must(house.update(router, |update| update.hostinfo = Some(hostinfo)));
    assert_eq!(peer_of(&house, viewer).allowed_ips, None, "that is: its addresses");
    let approved = parse(&["0.0.0.0/0", "10.0.0.0/8", "192.168.0.0/16"]);
    house.must(Command::ApproveRoutes { node: router, routes: approved });
    let addresses = ["100.64.0.2/32", "fd7a:115c:a1e0::2/128"];
    let expected = parse(&[&addresses[..], &["0.0.0.0/0", "10.0.0.0/8", "::/0"]].concat());
    let own = full_of(&house, router).node.expect("its own node");
    for node in [peer_of(&house, viewer), *own] {
        assert_eq!(node.addresses, parse(&addresses));
        assert_eq!(node.allowed_ips.as_ref(), Some(&expected));
        assert_eq!(node.primary_routes, parse(&["10.0.0.0/8"]), "an exit is no subnet");
    }
}

#[test]
fn a_tagged_peer_belongs_to_its_tags() {
    let mut house = House::new();
    let viewer = house.join(1);
    house.join_with(2, TAGGED);
    let message = full_of(&house, viewer);
    let (peer, profile) = (&message.peers[0], &message.user_profiles[1]);
    assert_eq!((peer.user, &*profile.login_name), (profile.id, "tagged-devices"));
    assert_eq!(peer.tags, ["tag:web"]);
}

#[test]
fn peers_are_not_told_what_is_between_a_node_and_the_server() {
    let mut house = House::new();
    let (viewer, node) = (house.join(1), house.join(2));
    let hostinfo = Hostinfo {
        os_version: "13".to_owned(),
        device_model: "phone".to_owned(),
        ..house.node(node).hostinfo.clone()
    };
    house.must(house.update(node, |update| update.hostinfo = Some(hostinfo)));
    let peer = peer_of(&house, viewer);
    assert_eq!(peer.machine, mesh_keys::MachinePublic::default());
    let told = peer.hostinfo.expect("peers have one");
    assert_eq!((&*told.os, &*told.os_version, &*told.device_model), ("linux", "", ""));
}
