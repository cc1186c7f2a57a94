//! Answers and batches.

use mesh_state::{Command, NodeUpdate, Refusal};
use mesh_store::{BATCH_COMMANDS_MAX, QUEUE_COMMANDS_MAX, SubmitError};
use mesh_testkit::new_user;

use crate::{Store, node_of, register, update, update_of};

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
async fn more_commands_than_the_queue_holds_are_turned_away_at_once() {
    let store = Store::start().await;
    let create = |number| Command::CreateUser(new_user(&format!("user{number}")));
    let answers = store.submit_at_once((0..QUEUE_COMMANDS_MAX + 100).map(create)).await;
    let (taken, late) = answers.split_at(QUEUE_COMMANDS_MAX);
    assert!(taken.iter().all(Result::is_ok));
    assert!(late.iter().all(|answer| *answer == Err(SubmitError::Busy)));
    store.must(create(9999)).await;
}

#[tokio::test]
async fn a_storm_of_updates_is_one_row_for_each_node_and_stops_nobody() {
    let store = Store::start().await;
    let node = store.join(1).await;
    let before = store.commits();
    for port in 1..=20_000 {
        store.handle.submit_soft(update(&node, port));
    }
    assert_eq!(store.handle.soft_depth(), 1);
    store.must(Command::CreateUser(new_user("bob"))).await;
    let endpoints = store.node(node.id).expect("the node is there").endpoints;
    assert_eq!(endpoints[0].port(), 20_000);
    assert_eq!(store.database.commits()[before..], [2], "one commit of a user and a node");
}

#[tokio::test]
async fn what_changes_nothing_is_no_epoch() {
    let store = Store::start().await;
    let node = store.join(1).await;
    let (before, commits) = (store.handle.snapshot(), store.commits());
    let epochs = store.handle.subscribe();
    assert!(store.handle.submit(Command::CreateUser(new_user("alice"))).await.is_err());
    store.must(Command::Register(Box::new(mesh_testkit::registration(1, 1)))).await;
    let unchanged = NodeUpdate { endpoints: node.endpoints.clone(), ..update_of(&node) };
    store.must(Command::UpdateNode(Box::new(unchanged))).await;
    assert!(!epochs.has_changed().expect("the store lives"));
    let after = store.handle.snapshot();
    assert_eq!((after.epoch, after.revision), (before.epoch, before.revision));
    assert_eq!(store.commits(), commits);
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
    store.handle.submit_soft(update(&node, 1));
    store.handle.submit_soft(update(&node, 2));
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
