//! The end of the writer.

use mesh_state::Command;
use mesh_store::SubmitError;
use mesh_testkit::new_user;

use crate::{Store, register, update};

#[tokio::test]
async fn what_waits_at_the_end_is_carried_out_and_answered() {
    let store = Store::start().await;
    let submissions: Vec<_> = (1..=300)
        .map(|machine| {
            let handle = store.handle.clone();
            tokio::spawn(async move { handle.submit(register(machine)).await })
        })
        .collect();
    tokio::task::yield_now().await;
    store.stop.cancel();
    for submission in submissions {
        assert!(submission.await.expect("no panic").is_ok());
    }
    store.writer.await.expect("the writer ends");
    assert_eq!(store.database.rows().load().tailnet.node_count(), 300);
}

#[tokio::test]
async fn nothing_is_taken_after_the_end() {
    let store = Store::start().await;
    let node = store.join(1).await;
    store.stop.cancel();
    store.writer.await.expect("the writer ends");
    let answer = store.handle.submit(Command::CreateUser(new_user("bob"))).await;
    assert_eq!(answer, Err(SubmitError::Closed));
    store.handle.submit_soft(update(&node, 1));
    assert_eq!(store.handle.snapshot().tailnet.node_count(), 1, "the last snapshot stays");
}

#[tokio::test]
async fn soft_commands_are_flushed_at_the_end() {
    let store = Store::start().await;
    let nodes = [store.join(1).await, store.join(2).await];
    for port in 1..=1000 {
        for node in &nodes {
            store.handle.submit_soft(update(node, port));
        }
    }
    store.stop.cancel();
    store.writer.await.expect("the writer ends");
    let stored = store.database.rows().load().tailnet;
    for node in nodes {
        let endpoints = &stored.node(node.id).expect("the node is there").endpoints;
        assert_eq!(endpoints[0].port(), 1000);
    }
}

#[tokio::test]
async fn the_writer_ends_when_nobody_can_ask_it_any_more() {
    let Store { handle, writer, .. } = Store::start().await;
    drop(handle);
    writer.await.expect("the writer ends");
}
