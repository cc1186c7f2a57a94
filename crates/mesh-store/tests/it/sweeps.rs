//! What falls due is done in time, under paused time and a clock that is turned along with it.

use std::time::Duration;

use mesh_model::{Node, NodeId};
use mesh_state::{Command, NewPreauthKey, Outcome, Registration, Settings};
use mesh_testkit::{at, new_preauth_key, new_user, registration};

use crate::{Store, node_of};

const LIFETIME: Duration = Duration::from_secs(100);

/// The time between "not yet" and "done".
const BLINK: Duration = Duration::from_millis(5);

/// A store in which keys live for [`LIFETIME`], with one node whose key was made at 0.
async fn store_with_node() -> (Store, Node) {
    let settings = Settings { node_expiry: Some(LIFETIME), ..Settings::default() };
    let store = Store::start_with(settings, |writer| writer).await;
    let node = store.join(1).await;
    (store, node)
}

/// What was told to have run out since `cursor`.
fn ran_out(store: &Store, cursor: u64) -> (bool, Vec<u32>) {
    let changes = store.handle.since(cursor).expect("the cursor is young").changes;
    (changes.key_ran_out, changes.nodes.iter().collect())
}

#[tokio::test(start_paused = true)]
async fn a_key_runs_out_at_its_deadline() {
    let (store, node) = store_with_node().await;
    store.pass(LIFETIME.saturating_sub(BLINK)).await;
    let cursor = store.handle.snapshot().epoch;
    assert!(!store.handle.since(cursor - 1).expect("young").changes.key_ran_out);
    store.pass(BLINK).await;
    assert_eq!(ran_out(&store, cursor), (true, vec![node.id.0]));
    assert_eq!(store.handle.snapshot().at, at(100));
}

#[tokio::test(start_paused = true)]
async fn the_first_snapshot_after_a_deadline_tells_of_it_whatever_made_it() {
    let (store, node) = store_with_node().await;
    let cursor = store.handle.snapshot().epoch;
    // The clock is past the deadline before the writer's timer is.
    store.clock.advance(LIFETIME);
    store.must(Command::CreateUser(new_user("bob"))).await;
    let snapshot = store.handle.snapshot();
    assert!(node.is_expired(snapshot.at) && snapshot.epoch == cursor + 1);
    assert_eq!(ran_out(&store, cursor), (true, vec![node.id.0]));
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_node_is_removed_and_its_row_with_it() {
    let store = Store::start().await;
    let ephemeral =
        NewPreauthKey { ephemeral: true, ..new_preauth_key("key2", mesh_model::UserId(1)) };
    let Outcome::PreauthKey(key) = store.must(Command::CreatePreauthKey(ephemeral)).await else {
        panic!("no key");
    };
    let registration = Registration { preauth_key: Some(key.id), ..registration(1, 1) };
    let outcome = store.must(Command::Register(Box::new(registration))).await;
    let node = node_of(&outcome).id;
    store.pass(Settings::default().ephemeral_timeout.saturating_sub(BLINK)).await;
    assert!(store.node(node).is_some());
    store.pass(BLINK).await;
    assert!(store.node(node).is_none());
    assert!(store.database.rows().load().tailnet.node(node).is_none());
}

#[tokio::test(start_paused = true)]
async fn chores_that_the_database_refuses_are_put_off() {
    let (store, _) = store_with_node().await;
    let node = NodeId(1);
    store.must(Command::DeleteNode { node }).await;
    store.database.set_down(true);
    store.clock.advance(Duration::from_hours(30 * 24));
    store.pass(Duration::from_mins(1)).await;
    let tombstones = || store.handle.snapshot().tailnet.tombstones().count();
    assert_eq!(tombstones(), 1);
    store.database.set_down(false);
    store.pass(Duration::from_secs(1)).await;
    assert_eq!(tombstones(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_is_noticed_within_a_minute() {
    let (store, _) = store_with_node().await;
    let cursor = store.handle.snapshot().epoch;
    store.clock.advance(LIFETIME);
    tokio::time::sleep(Duration::from_mins(1) + BLINK).await;
    assert!(ran_out(&store, cursor).0);
}

#[tokio::test(start_paused = true)]
async fn the_writer_sleeps_while_nothing_is_due() {
    let (store, _) = store_with_node().await;
    store.pass(Duration::from_hours(1)).await;
    let epoch = store.handle.snapshot().epoch;
    store.pass(Duration::from_hours(24)).await;
    assert_eq!(store.handle.snapshot().epoch, epoch);
}
