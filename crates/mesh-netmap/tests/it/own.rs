//! What a viewer is told when it is itself among what changed.

use mesh_model::{Hostinfo, NodeId, UserId};
use mesh_netmap::{Differences, Step, Told, self_node};
use mesh_state::Command;
use mesh_wire::MapResponse;

use crate::house::{ALICES, House, LIFETIME, TAGGED, context_with, with_peer_api};
use crate::viewer::Viewer;

/// A tailnet of alice's node 1, which looks at alice's node 2.
fn house_and_viewer() -> (House, Viewer) {
    let mut house = House::with_expiry();
    let viewer = house.join(1);
    house.join(2);
    let viewer = Viewer::open(&house, viewer);
    (house, viewer)
}

/// A message with the viewer's own node, as it is now.
fn own(house: &House) -> MapResponse {
    let node = self_node(house.newest(), &house.node(NodeId(1)), &context_with([1, 2]));
    MapResponse { node: Some(Box::new(node)), ..MapResponse::default() }
}

#[test]
fn what_a_node_says_of_itself_does_not_come_back_to_it() {
    let (mut house, mut viewer) = house_and_viewer();
    let hostinfo = Hostinfo {
        os_version: "99".to_owned(),
        ..with_peer_api(house.node(viewer.node).hostinfo.clone(), 5_000)
    };
    house.must(house.update(viewer.node, |update| {
        update.hostinfo = Some(hostinfo);
        update.endpoints = vec![];
        update.home_derp = Some(2);
    }));
    assert_eq!(viewer.wake(&house), []);
}

#[test]
fn what_changed_beside_it_is_told_in_place() {
    let (mut house, mut viewer) = house_and_viewer();
    house.must(house.update(viewer.node, |update| update.endpoints = vec![]));
    house.disconnect(NodeId(2));
    let told = viewer.wake(&house);
    assert_eq!(told.iter().map(|message| message.peers_changed_patch.len()).sum::<usize>(), 1);
    assert_eq!((told.len(), viewer.rebuilds), (1, 1), "the first message alone is dear");
}

#[test]
fn a_renamed_node_is_told_so_by_itself() {
    let (mut house, mut viewer) = house_and_viewer();
    house.must(Command::RenameNode { node: viewer.node, name: "web".to_owned() });
    assert_eq!(viewer.wake(&house), [own(&house)]);
}

#[test]
fn its_own_node_is_told_after_its_peers() {
    let (mut house, mut viewer) = house_and_viewer();
    house.must(Command::RenameNode { node: viewer.node, name: "web".to_owned() });
    house.must(Command::DeleteNode { node: NodeId(2) });
    let removal =
        MapResponse { peers_removed: vec![mesh_wire::NodeId(2)], ..MapResponse::default() };
    assert_eq!(viewer.wake(&house), [removal, own(&house)]);
}

#[test]
fn a_node_that_is_tagged_is_told_of_its_new_owner() {
    let (mut house, mut viewer) = house_and_viewer();
    let tags = vec!["tag:web".parse().expect("a tag")];
    house.must(Command::TagNode { node: viewer.node, tags });
    let user_profiles = vec![mesh_netmap::tagged_devices()];
    assert_eq!(viewer.wake(&house), [MapResponse { user_profiles, ..own(&house) }]);
}

#[test]
fn everybody_is_told_a_complete_netmap_when_a_key_runs_out() {
    let mut house = House::with_expiry();
    let viewer = house.join_with(1, TAGGED);
    house.join(2);
    let mut viewer = Viewer::open(&house, viewer);
    house.pass(LIFETIME);
    let told = viewer.wake(&house);
    assert_eq!(told.len(), 2);
    assert!(told[0].peers_changed[0].expired);
    assert_eq!(told[1], own(&house), "the netmap that clients keep holds the expiry");
    assert_eq!(viewer.rebuilds, 2);
}

#[test]
fn a_viewer_whose_key_runs_out_is_told_so_and_loses_its_peers() {
    let (mut house, mut viewer) = house_and_viewer();
    house.pass(LIFETIME);
    let told = viewer.wake(&house);
    let removal =
        MapResponse { peers_removed: vec![mesh_wire::NodeId(2)], ..MapResponse::default() };
    assert_eq!((told.len(), &told[0]), (2, &removal));
    assert!(told[1].node.as_ref().is_some_and(|node| node.expired));
}

#[test]
fn a_viewer_whose_key_is_good_again_is_told_everything() {
    let (mut house, mut viewer) = house_and_viewer();
    house.pass(LIFETIME);
    viewer.wake(&house);
    for node in [1, 2].map(NodeId) {
        house.must(Command::SetNodeExpiry { node, expires_at: None });
    }
    let told = viewer.wake(&house);
    assert_eq!(told[0].peers.len(), 1);
}

#[test]
fn an_expired_viewer_hears_of_itself_alone() {
    let (mut house, mut viewer) = house_and_viewer();
    house.pass(LIFETIME);
    viewer.wake(&house);
    house.join_with(3, TAGGED);
    assert_eq!(viewer.wake(&house), []);
    house.must(Command::RenameNode { node: viewer.node, name: "web".to_owned() });
    house.must(Command::DeleteNode { node: NodeId(2) });
    assert_eq!(viewer.wake(&house), [own(&house)]);
}

#[test]
fn a_viewer_without_a_disco_key_hears_of_its_user() {
    let mut house = House::new();
    let viewer = house.register(1, ALICES);
    let mut viewer = Viewer::open(&house, viewer);
    house.must(Command::RenameUser { user: UserId(1), name: "carol".to_owned() });
    let told = viewer.wake(&house);
    assert_eq!(told[0].user_profiles[0].login_name, "carol");
}

#[test]
fn a_viewer_that_is_not_touched_is_told_what_its_class_is_told() {
    let (mut house, viewer) = house_and_viewer();
    let cursor = house.cursor();
    house.disconnect(NodeId(2));
    let (from, to, changes) = house.since(cursor);
    let step = Step { from, to, changes: &changes, context: &context_with([1, 2]) };
    let Told::Differences(told) = step.tell(viewer.node) else { panic!("no differences") };
    assert!(told.peers.is_some());
    assert_eq!(Differences { peers: None, ..told }, Differences::default());
}
