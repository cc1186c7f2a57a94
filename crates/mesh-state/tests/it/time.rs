//! What happens by itself: expiry, removal of ephemeral nodes, going offline.

use std::time::Duration;

use mesh_model::{SessionId, TailnetId};
use mesh_testkit::{at, context, registration};

use crate::House;
use mesh_state::{ChangeSet, Command, Registration, Settings, State};

/// Sweeps at an instant and tells what changed.
fn sweep(house: &mut House, seconds: i64) -> ChangeSet {
    house.now = at(seconds);
    let mut draft = house.state.draft();
    draft.apply(&Command::Sweep, &mesh_testkit::context(house.now)).expect("never refused");
    if let Some(batch) = draft.batch(house.now) {
        house.rows.commit(&batch).expect("committed");
    }
    let changes;
    (house.state, changes) = draft.finish();
    changes
}

#[test]
fn key_that_runs_out_is_told_once() {
    let node_expiry = Some(Duration::from_secs(100));
    let mut house = House::with(Settings { node_expiry, ..Settings::default() });
    let node = house.connected(1);
    assert!(!sweep(&mut house, 99).key_ran_out);
    let changes = sweep(&mut house, 100);
    assert!(changes.key_ran_out && changes.nodes.contains(node.id.0));
    assert!(sweep(&mut house, 101).is_empty());
    assert_eq!(house.state.next_deadline(), None);
}

#[test]
fn expiry_by_an_admin_is_no_surprise_to_the_clock() {
    let mut house = House::new();
    let node = house.connected(1);
    house.must(Command::SetNodeExpiry { node: node.id, expires_at: Some(at(0)) });
    assert!(!sweep(&mut house, 60).key_ran_out);
}

#[test]
fn ephemeral_node_is_removed_after_it_was_away_for_long_enough() {
    let mut house = House::new();
    let key = house.key(|key| key.ephemeral = true);
    let node = house.must_register(Registration { preauth_key: Some(key), ..registration(1, 1) });
    house.connect(&node);
    sweep(&mut house, 100_000);
    assert!(house.has(node.id), "it is online");
    house.must(Command::Disconnect { node: node.id, session: SessionId(1) });
    sweep(&mut house, 100_000 + 30 * 60 - 1);
    assert!(house.has(node.id));
    sweep(&mut house, 100_000 + 30 * 60);
    assert!(!house.has(node.id));
}

#[test]
fn newer_stream_keeps_a_node_online() {
    let mut house = House::new();
    let node = house.connected(1);
    house.connect(&node);
    house.must(Command::Disconnect { node: node.id, session: SessionId(1) });
    assert_eq!(house.get(node.id).session, Some(SessionId(2)));
    house.must(Command::Disconnect { node: node.id, session: SessionId(2) });
    let gone = house.get(node.id);
    assert_eq!((gone.session, gone.last_seen_at), (None, Some(house.now)));
}

#[test]
fn who_takes_over_from_a_stream_is_no_news_to_peers() {
    let mut house = House::new();
    let node = house.connected(1);
    let rows = house.rows.clone();
    let mut draft = house.state.draft();
    let connect =
        Command::Connect { node: node.id, node_key: node.node_key, disco_key: node.disco_key };
    draft.apply(&connect, &context(at(1))).expect("connected");
    assert!(draft.has_news() && draft.batch(at(1)).is_none());
    let (state, changes) = draft.finish();
    assert_eq!(changes.taken_over.iter().collect::<Vec<_>>(), [node.id.0]);
    assert!(changes.nodes.is_empty());
    assert!(state.snapshot(at(1)).epoch > house.state.snapshot(at(1)).epoch);
    assert!(rows == house.rows);
}

#[test]
fn what_changes_nothing_is_no_news() {
    let mut house = House::new();
    let node = house.connected(1);
    let mut draft = house.state.draft();
    let taken = Command::CreateUser(mesh_testkit::new_user("alice"));
    let again = Command::Register(Box::new(mesh_testkit::registration(1, 1)));
    let late = Command::Disconnect { node: node.id, session: SessionId(99) };
    for command in [taken, again, late, Command::Sweep] {
        let _ = draft.apply(&command, &context(at(1)));
        assert!(!draft.has_news(), "{command:?}");
    }
    assert_eq!(draft.finish().0.snapshot(at(1)).epoch, house.state.snapshot(at(1)).epoch);
}

#[test]
fn restart_of_the_server_does_not_take_nodes_offline_at_once() {
    let mut house = House::new();
    let (back, away) = (house.connected(1), house.connected(2));
    house.state = State::new(
        TailnetId(1),
        house.rows.load(),
        std::sync::Arc::default(),
        Settings::default(),
        house.now,
    );
    assert!(house.get(back.id).session.is_some() && house.get(away.id).session.is_some());
    house.connect(&back);
    let changes = sweep(&mut house, 60);
    assert_eq!(changes.nodes.iter().collect::<Vec<_>>(), [away.id.0]);
    assert!(house.get(back.id).session.is_some());
    assert_eq!(house.get(away.id).last_seen_at, Some(at(60)));
}

#[test]
fn revoked_keys_and_tombstones_are_forgotten_in_time() {
    let mut house = House::new();
    let node = house.connected(1);
    let key = node.preauth_key.expect("it came in with a key");
    house.must(Command::RevokePreauthKey { key });
    house.must(Command::DeleteNode { node: node.id });
    sweep(&mut house, 168 * 3600);
    assert!(house.tailnet().preauth_key(key).is_none());
    assert_eq!(house.tailnet().tombstones().count(), 1);
    sweep(&mut house, 30 * 24 * 3600);
    assert_eq!(house.tailnet().tombstones().count(), 0);
}
