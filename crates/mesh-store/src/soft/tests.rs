use mesh_model::{Hostinfo, SessionId};
use mesh_state::NodeUpdate;
use mesh_testkit::{disco_key, node_key};

use super::*;

fn update(node: u32, key: u64, port: u16) -> NodeUpdate {
    NodeUpdate {
        node: NodeId(node),
        node_key: node_key(key),
        disco_key: disco_key(1),
        hostinfo: None,
        endpoints: vec![([192, 0, 2, 1], port).into()],
        home_derp: None,
        capability_version: 130,
    }
}

fn put(soft: &Soft, update: NodeUpdate) {
    soft.put(Command::UpdateNode(Box::new(update)));
}

/// The ports of the updates that wait, in order.
fn ports(soft: &Soft, max: usize) -> Vec<u16> {
    let port = |request: &Request| {
        let Command::UpdateNode(update) = &request.command else { panic!("{request:?}") };
        update.endpoints[0].port()
    };
    soft.take(max).iter().map(port).collect()
}

#[test]
fn a_node_waits_once_and_in_its_turn() {
    let soft = Soft::default();
    for port in 1..=9 {
        put(&soft, update(1, 1, port));
        put(&soft, update(2, 2, 100 + port));
    }
    put(&soft, update(3, 3, 200));
    assert_eq!(ports(&soft, 2), [9, 109]);
    assert_eq!(ports(&soft, 2), [200]);
    assert_eq!(soft.len(), 0);
}

#[test]
fn what_a_later_update_leaves_unsaid_stays() {
    let soft = Soft::default();
    let hostinfo = Hostinfo { hostname: "web".to_owned(), ..Hostinfo::default() };
    put(&soft, NodeUpdate { hostinfo: Some(hostinfo), home_derp: Some(7), ..update(1, 1, 1) });
    put(&soft, NodeUpdate { disco_key: disco_key(0), ..update(1, 1, 2) });
    put(&soft, NodeUpdate { home_derp: Some(8), ..update(1, 1, 3) });
    let taken = soft.take(9);
    let [Request { command: Command::UpdateNode(update), .. }] = &*taken else {
        panic!("{taken:?}")
    };
    assert_eq!(update.hostinfo.as_ref().map(|hostinfo| &*hostinfo.hostname), Some("web"));
    assert_eq!((update.home_derp, update.endpoints[0].port()), (Some(8), 3));
}

#[test]
fn an_update_of_an_older_key_replaces_none_of_a_newer_one() {
    let soft = Soft::default();
    put(&soft, update(1, 2, 1));
    put(&soft, update(1, 1, 2));
    assert_eq!(ports(&soft, 9), [1, 2]);
}

#[test]
fn what_comes_back_is_older_than_what_came_since() {
    let soft = Soft::default();
    put(&soft, update(1, 1, 1));
    put(&soft, update(2, 2, 2));
    let taken = soft.take(9);
    put(&soft, update(3, 3, 3));
    put(&soft, update(1, 1, 9));
    for Request { command, at, .. } in taken {
        soft.put_back(command, at);
    }
    assert_eq!(ports(&soft, 9), [2, 3, 9]);
}

#[test]
fn the_end_of_an_older_stream_does_not_hide_that_of_a_newer_one() {
    let soft = Soft::default();
    for session in [4, 5, 3] {
        soft.put(Command::Disconnect { node: NodeId(1), session: SessionId(session) });
    }
    let taken = soft.take(9);
    let [Request { command: Command::Disconnect { session, .. }, .. }] = &*taken else {
        panic!("{taken:?}")
    };
    assert_eq!(*session, SessionId(5));
}
