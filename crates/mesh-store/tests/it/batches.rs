//! Answers and batches.

use mesh_state::{Command, Refusal};
use mesh_store::{BATCH_COMMANDS_MAX, SubmitError};
use mesh_testkit::new_user;

use crate::{Store, node_of, register, update};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_an_answer_finds_it_in_the_snapshot_and_on_disk() {
    let store = Store::start().await;
    let registrations = (1..=100).map(|machine| {
        let (handle, database) = (store.handle.clone(), store.database.clone());
        tokio::spawn(async move {
            let outcome = handle.submit(register(machine)).await.expect("registered");
            let node = node_of(&outcome);
            let snapshot = handle.snapshot();
            assert_eq!(snapshot.tailnet.node(node.id).map(|node| &**node), Some(node));
            assert!(database.rows().load().tailnet.node(node.id).is_some());
        })
    });
    for registration in registrations.collect::<Vec<_>>() {
        registration.await.expect("the assertions hold");
    }
    assert_eq!(store.handle.snapshot().tailnet.node_count(), 100);
}

#[tokio::test]
async fn commands_that_wait_together_share_a_commit_and_a_snapshot() {
    let store = Store::start().await;
    let (commits, epoch) = (store.commits(), store.handle.snapshot().epoch);
    let create = |number| Command::CreateUser(new_user(&format!("user{number}")));
    let answers = store.submit_at_once((0..BATCH_COMMANDS_MAX).map(create)).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(store.commits() - commits, 1);
    assert_eq!(store.handle.snapshot().epoch - epoch, 1);
}

#[tokio::test]
async fn batches_are_no_larger_than_asked_for() {
    let store = Store::start_with(<_>::default(), |writer| writer.with_batch_max(10)).await;
    let before = store.commits();
    store.submit_at_once((1..=100).map(register)).await;
    assert_eq!(store.database.commits()[before..], [10; 10]);
}

#[tokio::test]
async fn more_commands_than_the_queue_holds_wait_for_room() {
    let store = Store::start().await;
    let node = store.join(1).await;
    let updates = (1..=10_000).map(|port| update(&node, port));
    assert!(store.submit_at_once(updates).await.iter().all(Result::is_ok));
    let endpoints = store.node(node.id).expect("the node is there").endpoints;
    assert_eq!(endpoints[0].port(), 10_000);
}

#[tokio::test]
async fn a_refused_command_leaves_the_rest_of_its_batch_alone() {
    let store = Store::start().await;
    let names = ["bob", "alice", "carol"];
    let answers = store.submit_at_once(names.map(|name| Command::CreateUser(new_user(name)))).await;
    let taken = SubmitError::Refused(Refusal::NameTaken("alice".to_owned()));
    assert_eq!(answers[1], Err(taken));
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert_eq!(store.handle.snapshot().tailnet.users().count(), 3);
}

#[tokio::test]
async fn soft_commands_are_carried_out_in_their_turn() {
    let store = Store::start().await;
    let node = store.join(1).await;
    store.handle.submit_soft(update(&node, 1)).await;
    store.handle.submit_soft(update(&node, 2)).await;
    store.must(Command::CreateUser(new_user("bob"))).await;
    let endpoints = store.node(node.id).expect("the node is there").endpoints;
    assert_eq!(endpoints, [([192, 0, 2, 1], 2).into()]);
}

#[tokio::test]
async fn updates_of_a_node_in_one_batch_are_one_row() {
    let store = Store::start().await;
    let node = store.join(1).await;
    let before = store.commits();
    store.submit_at_once((1..=50).map(|port| update(&node, port))).await;
    assert_eq!(store.database.commits()[before..], [1]);
}

#[tokio::test]
async fn an_update_that_changes_nothing_is_not_written() {
    let store = Store::start().await;
    let node = store.join(1).await;
    store.must(update(&node, 1)).await;
    let before = store.commits();
    store.must(update(&node, 1)).await;
    assert_eq!(store.commits(), before);
}
