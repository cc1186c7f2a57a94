//! The epoch log, for readers that hold a cursor.

use std::sync::Arc;

use mesh_model::UserId;
use mesh_state::Command;
use mesh_store::EPOCHS_MAX;
use mesh_testkit::new_user;

use crate::{Store, update};

#[tokio::test]
async fn a_reader_that_is_up_to_date_has_nothing_to_read() {
    let store = Store::start().await;
    let newest = store.handle.snapshot();
    let span = store.handle.since(newest.epoch).expect("the newest is there");
    assert_eq!(span.to.epoch, newest.epoch);
    assert!(span.changes.is_empty());
    assert!(store.handle.since(newest.epoch + 1).is_none(), "nobody has read what is to come");
}

#[tokio::test]
async fn a_span_unites_the_changes_between_its_ends() {
    let store = Store::start().await;
    let start = store.handle.snapshot().epoch;
    let one = store.join(1).await;
    let middle = store.handle.snapshot().epoch;
    store.join(2).await;
    store.must(update(&one, 5)).await;
    store.must(Command::CreateUser(new_user("bob"))).await;

    let span = store.handle.since(start).expect("the cursor is young");
    assert_eq!(span.to.tailnet.node_count(), 2);
    assert_eq!(span.changes.nodes.iter().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(span.changes.users, [UserId(2)].into());

    let span = store.handle.since(middle).expect("the cursor is young");
    assert_eq!(span.changes.nodes.iter().collect::<Vec<_>>(), [1, 2]);

    let last = store.handle.since(span.to.epoch - 1).expect("the cursor is young").changes;
    assert_eq!((last.nodes.len(), last.users), (0, [UserId(2)].into()));
}

#[tokio::test]
async fn a_cursor_that_fell_out_of_the_log_is_told_so() {
    let store = Store::start().await;
    let node = store.join(1).await;
    let cursor = store.handle.snapshot().epoch;
    let epochs = u16::try_from(EPOCHS_MAX).expect("few");
    for port in 1..epochs {
        store.must(update(&node, port)).await;
    }
    let span = store.handle.since(cursor).expect("it is the oldest in the log");
    assert_eq!(span.to.epoch, cursor + u64::from(epochs) - 1);
    store.must(update(&node, epochs)).await;
    assert!(store.handle.since(cursor).is_none());
}

#[tokio::test]
async fn an_old_snapshot_lives_as_long_as_a_reader_holds_it() {
    let store = Store::start().await;
    let node = store.join(1).await;
    let held = store.handle.snapshot();
    let alive = Arc::downgrade(&held);
    store.must(update(&node, 1)).await;
    assert!(alive.upgrade().is_some());
    drop(held);
    assert!(alive.upgrade().is_none(), "the log holds none but the newest");
}

#[tokio::test]
async fn readers_hear_of_each_epoch_after_they_can_read_it() {
    let store = Store::start().await;
    let mut epochs = store.handle.subscribe();
    let cursor = *epochs.borrow_and_update();
    store.join(1).await;
    epochs.changed().await.expect("the store lives");
    let newest = *epochs.borrow_and_update();
    assert!(newest > cursor);
    assert!(store.handle.since(cursor).expect("young").to.epoch >= newest);
}
