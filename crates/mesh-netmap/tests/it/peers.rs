//! What a viewer is told when others change. Each message is folded on the way; see [`Viewer`].

use mesh_model::{Hostinfo, NodeId, UserId};
use mesh_netmap::peer;
use mesh_state::Command;
use mesh_testkit::disco_key;
use mesh_wire::{DerpRegionId, MapResponse, PeerChange};

use crate::house::{ALICES, BOBS, House, LIFETIME, TAGGED, context_with, with_peer_api};
use crate::viewer::Viewer;

/// A tailnet of tagged node 1, which looks at alice's node 2.
fn house_and_viewer() -> (House, Viewer, NodeId) {
    let mut house = House::with_expiry();
    let (viewer, node) = (house.join_with(1, TAGGED), house.join(2));
    let viewer = Viewer::open(&house, viewer);
    (house, viewer, node)
}

fn wire_id(node: NodeId) -> mesh_wire::NodeId {
    mesh_wire::NodeId(node.0.into())
}

/// A message that patches one peer.
fn patch(node: NodeId, change: PeerChange) -> MapResponse {
    let change = PeerChange { node_id: wire_id(node), ..change };
    MapResponse { peers_changed_patch: vec![change], ..MapResponse::default() }
}

/// A message with one peer whole, as node 1 sees it now.
fn whole(house: &House, node: NodeId) -> MapResponse {
    let peer = peer(house.newest(), NodeId(1), &house.node(node), &context_with([1, 2]));
    MapResponse { peers_changed: vec![peer], ..MapResponse::default() }
}

/// Checks what the viewer is told once `change` has happened, and that a Go client applies it in place.
#[track_caller]
fn check(
    change: impl FnOnce(&mut House, NodeId),
    expected: impl Fn(&House, NodeId) -> Vec<MapResponse>,
) {
    let (mut house, mut viewer, node) = house_and_viewer();
    change(&mut house, node);
    let expected = expected(&house, node);
    assert_eq!(viewer.wake(&house), expected);
    assert_eq!(viewer.rebuilds, 1, "the first message alone is dear");
}

#[test]
fn nothing_is_told_of_nothing() {
    check(|_, _| {}, |_, _| vec![]);
    check(|house, node| drop(house.must(house.update(node, |_| {}))), |_, _| vec![]);
    check(|house, _| _ = house.register(3, BOBS), |_, _| vec![]);
}

#[test]
fn a_peer_that_came_is_told_whole_and_with_its_user() {
    let (mut house, mut viewer, _) = house_and_viewer();
    let bobs = house.join_with(3, BOBS);
    let told = viewer.wake(&house);
    let users: Vec<_> = told[0].user_profiles.iter().map(|user| &*user.login_name).collect();
    assert_eq!(users, ["bob"]);
    assert_eq!(told[0].peers_changed, whole(&house, bobs).peers_changed);
    assert_eq!((told.len(), viewer.rebuilds), (1, 1), "the first message alone is dear");
}

#[test]
fn a_peer_that_went_is_removed() {
    check(
        |house, node| drop(house.must(Command::DeleteNode { node })),
        |_, node| {
            vec![MapResponse { peers_removed: vec![wire_id(node)], ..MapResponse::default() }]
        },
    );
}

#[test]
fn a_peer_that_came_and_went_between_two_looks_was_never_there() {
    check(
        |house, _| {
            let node = house.join(3);
            house.must(Command::DeleteNode { node });
        },
        |_, _| vec![],
    );
}

#[test]
fn a_peer_that_was_away_between_two_looks_was_never_away() {
    check(
        |house, node| {
            house.disconnect(node);
            house.connect(node);
        },
        |_, _| vec![],
    );
}

#[test]
fn endpoints_are_a_patch_also_when_there_are_none() {
    for endpoints in [vec![], vec![([192, 0, 2, 9], 9).into()]] {
        let told = endpoints.clone();
        check(
            |house, node| {
                drop(house.must(house.update(node, |update| update.endpoints = endpoints)));
            },
            |_, node| {
                vec![patch(
                    node,
                    PeerChange { endpoints: Some(told.clone()), ..PeerChange::default() },
                )]
            },
        );
    }
}

#[test]
fn a_new_home_is_a_patch() {
    check(
        |house, node| drop(house.must(house.update(node, |update| update.home_derp = Some(2)))),
        |_, node| {
            let derp_region = DerpRegionId(2);
            vec![patch(node, PeerChange { derp_region, ..PeerChange::default() })]
        },
    );
}

#[test]
fn going_offline_is_a_patch_with_the_time() {
    check(House::disconnect, |house, node| {
        let (online, last_seen) = (Some(false), Some(house.time()));
        vec![patch(node, PeerChange { online, last_seen, ..PeerChange::default() })]
    });
}

#[test]
fn coming_online_is_a_patch_of_one_field() {
    let (mut house, mut viewer, node) = house_and_viewer();
    house.disconnect(node);
    viewer.wake(&house);
    house.connect(node);
    let online = PeerChange { online: Some(true), ..PeerChange::default() };
    assert_eq!(viewer.wake(&house), [patch(node, online)]);
}

#[test]
fn many_patches_are_one_message_and_the_last_value_counts() {
    let (mut house, mut viewer, node) = house_and_viewer();
    let other = house.join(3);
    viewer.wake(&house);
    for port in 1..=20 {
        for node in [node, other] {
            let endpoints = vec![([192, 0, 2, 1], port).into()];
            house.must(house.update(node, |update| update.endpoints = endpoints));
        }
    }
    let told = viewer.wake(&house);
    let [MapResponse { peers_changed_patch, .. }] = &told[..] else { panic!("not one: {told:?}") };
    let ports = peers_changed_patch.iter().flat_map(|patch| patch.endpoints.iter().flatten());
    assert_eq!(ports.map(std::net::SocketAddr::port).collect::<Vec<_>>(), [20, 20]);
}

#[test]
fn a_restart_that_moves_the_peer_api_is_taken_in_place() {
    let (mut house, mut viewer, node) = house_and_viewer();
    house.disconnect(node);
    viewer.wake(&house);
    house.connect(node);
    let hostinfo = with_peer_api(house.node(node).hostinfo.clone(), 5_000);
    house.must(house.update(node, |update| {
        update.hostinfo = Some(hostinfo);
        update.disco_key = disco_key(77);
        update.endpoints = vec![];
    }));
    assert_eq!(viewer.wake(&house), [whole(&house, node)]);
    assert_eq!(viewer.rebuilds, 1);
}

#[test]
fn what_go_clients_patch_by_themselves_comes_with_its_fields_apart() {
    let (mut house, mut viewer, node) = house_and_viewer();
    house.must(house.update(node, |update| update.disco_key = disco_key(77)));
    assert_eq!(viewer.wake(&house), [whole(&house, node)], "there is nothing to lose");

    let before = whole(&house, node).peers_changed.remove(0);
    house.must(house.update(node, |update| {
        update.disco_key = disco_key(78);
        update.endpoints = vec![];
    }));
    let slow = mesh_wire::Node { disco_key: disco_key(78), ..before };
    let fields = PeerChange { endpoints: Some(vec![]), ..PeerChange::default() };
    let slow = MapResponse { peers_changed: vec![slow], ..MapResponse::default() };
    assert_eq!(viewer.wake(&house), [slow, patch(node, fields)]);
}

#[test]
fn a_rotated_key_is_the_same_peer() {
    let (mut house, mut viewer, node) = house_and_viewer();
    house.now += 1;
    house.rotate(2, 20);
    assert_eq!(viewer.wake(&house), [whole(&house, node)]);
}

#[test]
fn what_peers_are_not_told_tells_them_nothing() {
    let (mut house, mut viewer, node) = house_and_viewer();
    let hostinfo = Hostinfo { os_version: "99".to_owned(), ..house.node(node).hostinfo.clone() };
    house.must(house.update(node, |update| update.hostinfo = Some(hostinfo)));
    assert_eq!(viewer.wake(&house), []);
}

#[test]
fn endpoints_in_another_order_are_the_same() {
    let (mut house, mut viewer, node) = house_and_viewer();
    let mut endpoints = vec![([192, 0, 2, 1], 1).into(), ([192, 0, 2, 2], 2).into()];
    house.must(house.update(node, |update| update.endpoints.clone_from(&endpoints)));
    viewer.wake(&house);
    endpoints.reverse();
    house.must(house.update(node, |update| update.endpoints = endpoints));
    assert_eq!(viewer.wake(&house), []);
}

#[test]
fn a_renamed_peer_is_told_whole() {
    check(
        |house, node| drop(house.must(Command::RenameNode { node, name: "web".to_owned() })),
        |house, node| vec![whole(house, node)],
    );
}

#[test]
fn a_peer_that_changes_its_owner_comes_with_the_new_one() {
    let mut house = House::new();
    let (viewer, node) = (house.join(1), house.join(2));
    let mut viewer = Viewer::open(&house, viewer);
    house.must(Command::TagNode { node, tags: vec!["tag:web".parse().expect("a tag")] });
    let expected =
        MapResponse { user_profiles: vec![mesh_netmap::tagged_devices()], ..whole(&house, node) };
    assert_eq!(viewer.wake(&house), [expected]);
}

#[test]
fn a_renamed_user_is_told_to_those_who_see_it() {
    let rename = |user| Command::RenameUser { user: UserId(user), name: "renamed".to_owned() };
    let (mut house, mut viewer, _) = house_and_viewer();
    house.must(rename(2));
    assert_eq!(viewer.wake(&house), [], "bob has no node");
    house.must(Command::RenameUser { user: UserId(1), name: "carol".to_owned() });
    let told = viewer.wake(&house);
    let user_profiles = told[0].user_profiles.clone();
    assert_eq!(user_profiles[0].login_name, "carol");
    assert_eq!(told, [MapResponse { user_profiles, ..MapResponse::default() }]);
    assert_eq!(viewer.rebuilds, 1);
}

#[test]
fn an_expired_peer_that_connects_no_longer_says_when_it_was_seen() {
    let (mut house, mut viewer, node) = house_and_viewer();
    house.disconnect(node);
    house.pass(LIFETIME);
    viewer.wake(&house);
    house.connect(node);
    let peer_seen_change = [(wire_id(node), false)].into();
    assert_eq!(viewer.wake(&house), [MapResponse { peer_seen_change, ..MapResponse::default() }]);
}

#[test]
fn a_key_that_an_admin_ends_is_told_like_any_change() {
    let (mut house, mut viewer, node) = house_and_viewer();
    house.must(Command::SetNodeExpiry { node, expires_at: Some(house.time()) });
    let expected = whole(&house, node);
    assert!(expected.peers_changed[0].expired);
    assert_eq!(viewer.wake(&house), [expected]);
    assert_eq!(viewer.rebuilds, 1);
}

#[test]
fn a_peer_is_told_of_once_it_has_a_disco_key() {
    let (mut house, mut viewer, _) = house_and_viewer();
    let node = house.register(3, ALICES);
    assert_eq!(viewer.wake(&house), []);
    house.connect(node);
    let told = viewer.wake(&house);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].peers_changed, whole(&house, node).peers_changed);
    assert!(!told[0].user_profiles.is_empty(), "its user is told with it");
}
