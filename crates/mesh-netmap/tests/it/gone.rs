//! What a viewer is told that is no more.

use mesh_client::Netmap;
use mesh_model::NodeId;
use mesh_netmap::{Step, Told, deleted_node};
use mesh_state::Command;
use mesh_testkit::{machine_key, node_key};
use mesh_wire::{MapResponse, SessionRules};

use crate::house::{House, context_with};
use crate::viewer::Viewer;

#[test]
fn a_deleted_node_is_told_that_its_key_has_expired() {
    let mut house = House::new();
    let node = house.join(1);
    let mut viewer = Viewer::open(&house, node);
    house.must(Command::DeleteNode { node: viewer.node });
    let told = viewer.wake(&house);
    assert!(viewer.has_ended);
    let [MapResponse { node: Some(node), .. }] = &told[..] else { panic!("no node in {told:?}") };
    assert!(node.expired && node.key_expiry.is_some_and(|expiry| expiry <= house.time()));
    assert_eq!((node.id.0, node.key), (1, node_key(1)));
    let node = Some(node.clone());
    assert_eq!(told, [MapResponse { node, ..MapResponse::default() }], "and nothing else");
}

#[test]
fn a_node_that_goes_on_under_another_key_is_told_nothing() {
    let mut house = House::new();
    let node = house.join(1);
    let mut viewer = Viewer::open(&house, node);
    house.rotate(1, 10);
    assert_eq!(viewer.wake(&house), []);
    assert!(viewer.has_ended);
}

#[test]
fn neither_is_told_everything_again() {
    let mut house = House::new();
    let [deleted, rotated] = [1, 2].map(|machine| house.join(machine));
    let mut viewers = [deleted, rotated].map(|node| Viewer::open(&house, node));
    house.must(Command::DeleteNode { node: deleted });
    house.rotate(2, 20);
    for viewer in &mut viewers {
        assert_eq!(viewer.wake_in(&house, context_with([7])), []);
        assert!(viewer.has_ended);
    }
}

#[test]
fn the_client_of_a_deleted_node_that_comes_back_is_told_the_same() {
    let mut house = House::new();
    let node = house.join(1);
    house.must(Command::DeleteNode { node });
    house.now += 100;
    let tombstone = *house.newest().tailnet.tombstone(machine_key(1), node_key(1)).expect("kept");
    let message = deleted_node(&tombstone, house.time(), &context_with([1]));
    assert_eq!(SessionRules::new().apply(&message), Ok(()));
    let mut netmap = Netmap::default();
    netmap.apply_as_stock(message, house.time());
    let node = netmap.node.expect("its own node");
    assert!(node.expired && node.machine_authorized);
    assert!(node.key_expiry.is_some_and(|expiry| expiry <= house.time()));
    assert_eq!((node.key, node.machine), (node_key(1), machine_key(1)));
    assert!(netmap.peers.is_empty() && netmap.user_profiles.contains_key(&node.user));
}

#[test]
fn a_viewer_that_nobody_knew_is_told_everything() {
    let mut house = House::new();
    let cursor = house.cursor();
    let node = house.join(1);
    let (from, to, changes) = house.since(cursor);
    let step = Step { from, to, changes: &changes, context: &context_with([1]) };
    assert_eq!((step.tell(node), node), (Told::Everything, NodeId(1)));
}
