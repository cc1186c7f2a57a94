//! What happens when the database is down, or says no.

use std::time::Duration;

use mesh_model::SessionId;
use mesh_state::{Command, Refusal, Write};
use mesh_store::{ANSWER_MAX, SubmitError};
use mesh_testkit::new_user;

use crate::{Store, register, update};

fn create(name: &str) -> Command {
    Command::CreateUser(new_user(name))
}

#[tokio::test]
async fn nothing_has_happened_while_the_database_is_down() {
    let store = Store::start().await;
    let before = store.handle.snapshot();
    let rows = store.database.rows().clone();
    store.database.set_down(true);
    for answer in store.submit_at_once((1..=20).map(register)).await {
        assert!(matches!(answer, Err(SubmitError::Unavailable(_))), "{answer:?}");
    }
    let after = store.handle.snapshot();
    assert_eq!((after.epoch, after.revision), (before.epoch, before.revision));
    assert_eq!(after.tailnet.node_count(), 0);
    assert!(*store.database.rows() == rows);
}

#[tokio::test]
async fn the_store_goes_on_once_the_database_is_back() {
    let store = Store::start().await;
    store.database.set_down(true);
    assert!(store.handle.submit(register(1)).await.is_err());
    store.database.set_down(false);
    let node = store.join(1).await;
    assert_eq!(node.id.0, 1, "the id of the lost draft is free");
}

#[tokio::test]
async fn a_refusal_that_rests_on_what_was_lost_is_none() {
    let store = Store::start().await;
    store.database.set_down(true);
    for answer in store.submit_at_once([create("bob"), create("bob")]).await {
        assert!(matches!(answer, Err(SubmitError::Unavailable(_))), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn soft_commands_wait_until_the_database_is_back() {
    let store = Store::start().await;
    let node = store.join(1).await;
    store.database.set_down(true);
    for port in 1..=3 {
        store.handle.submit_soft(update(&node, port));
        assert!(store.handle.submit(create("bob")).await.is_err());
    }
    store.handle.submit_soft(Command::Disconnect { node: node.id, session: SessionId(1) });
    store.pass(Duration::from_secs(2)).await;
    assert_eq!(store.handle.soft_depth(), 2);
    store.database.set_down(false);
    store.pass(Duration::from_secs(1)).await;
    let node = store.node(node.id).expect("the node is there");
    assert_eq!(node.endpoints, [([192, 0, 2, 1], 3).into()]);
    assert_eq!((node.session, store.handle.soft_depth()), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_told_so_and_what_nobody_waits_for_is_not_done() {
    let store = Store::start().await;
    let stuck = store.database.stall().await;
    let asked = (0..3).map(|number| {
        let handle = store.handle.clone();
        tokio::spawn(async move { handle.submit(create(&format!("user{number}"))).await })
    });
    let asked: Vec<_> = asked.collect();
    // The first one is under way in the database, the others wait behind it.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let late = store.handle.clone();
    let late = tokio::spawn(async move { late.submit(create("late")).await });
    let started = tokio::time::Instant::now();
    for answer in asked {
        assert_eq!(answer.await.expect("no panic"), Err(SubmitError::TimedOut));
    }
    assert_eq!(late.await.expect("no panic"), Err(SubmitError::TimedOut));
    assert!(started.elapsed() <= ANSWER_MAX + Duration::from_millis(10));
    drop(stuck);
    store.must(create("bob")).await;
    let snapshot = store.handle.snapshot();
    assert!(snapshot.tailnet.user_by_name("user0").is_some(), "it was under way");
    assert!(snapshot.tailnet.user_by_name("late").is_none(), "nobody waits for it any more");
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_stream_nobody_waits_for_any_more_is_not_online() {
    let store = Store::start().await;
    let node = crate::node_of(&store.must(register(1)).await).clone();
    let stuck = store.database.stall().await;
    let connect = Command::Connect {
        node: node.id,
        node_key: node.node_key,
        disco_key: mesh_testkit::disco_key(1),
    };
    assert_eq!(store.handle.submit(connect).await, Err(SubmitError::TimedOut));
    drop(stuck);
    store.pass(Duration::from_secs(1)).await;
    let node = store.node(node.id).expect("the node is there");
    assert!(node.is_announced() && node.session.is_none());
}

#[tokio::test]
async fn a_writer_that_was_overtaken_ends() {
    let store = Store::start().await;
    let before = store.handle.snapshot();
    store.database.overtake();
    assert_eq!(store.handle.submit(create("bob")).await, Err(SubmitError::Closed));
    store.writer.await.expect("it ends by itself");
    assert_eq!(store.handle.snapshot().epoch, before.epoch);
    assert_eq!(store.handle.submit(create("bob")).await, Err(SubmitError::Closed));
}

#[tokio::test]
async fn what_stays_in_memory_needs_no_database() {
    let store = Store::start().await;
    let node = store.join(1).await;
    store.must(update(&node, 1)).await;
    store.database.set_down(true);
    store.must(update(&node, 1)).await;
}

fn makes_mallory(write: &Write) -> bool {
    matches!(write, Write::PutUser(user) if user.name == "mallory")
}

#[tokio::test]
async fn only_the_command_that_the_database_refuses_fails() {
    let store = Store::start().await;
    store.database.refuse(makes_mallory);
    let (commits, epoch) = (store.commits(), store.handle.snapshot().epoch);
    let answers = store.submit_at_once(["bob", "mallory", "carol"].map(create)).await;
    assert_eq!(answers[1], Err(SubmitError::Refused(Refusal::Conflict)));
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert_eq!(store.commits() - commits, 2);
    let snapshot = store.handle.snapshot();
    assert_eq!(snapshot.epoch - epoch, 2);
    assert!(snapshot.tailnet.user_by_name("carol").is_some());
    assert!(snapshot.tailnet.user_by_name("mallory").is_none());
    assert_eq!(store.database.rows().load().tailnet.users().count(), 3);
}

#[tokio::test]
async fn a_refusal_that_rests_on_a_conflict_is_decided_again() {
    let store = Store::start().await;
    store.database.refuse(makes_mallory);
    let renamed = Command::RenameUser { user: mesh_model::UserId(1), name: "mallory".to_owned() };
    let answers = store.submit_at_once([renamed, create("alice"), create("bob")]).await;
    let taken = SubmitError::Refused(Refusal::NameTaken("alice".to_owned()));
    assert_eq!(answers[0], Err(SubmitError::Refused(Refusal::Conflict)));
    assert_eq!(answers[1], Err(taken), "the draft in which the name was free has been dropped");
    assert!(answers[2].is_ok());
}
