//! When a stream starts over with everything.

use std::time::Duration;

use mesh_state::Command;
use mesh_store::EPOCHS_MAX;
use mesh_testkit::at;
use tokio::time::sleep;

use crate::lab::{Lab, check_quiet, context, next};

#[tokio::test(start_paused = true)]
async fn a_new_context_is_told_with_everything() {
    let lab = Lab::new().await;
    let (viewer, node) = (lab.join(1).await, lab.join(2).await);
    let mut stream = lab.follow(viewer).await;
    for number in 1..=3 {
        lab.contexts.send_replace(context(&format!("number{number}.example")));
        lab.move_to(node, number).await;
    }
    let told = next(&mut stream).await.expect("a message");
    assert_eq!((&*told.domain, told.peers[0].endpoints[0].port()), ("number3.example", 3));
    assert!(told.node.is_some_and(|node| node.name.ends_with(".number3.example.")));
    check_quiet(&mut stream).await;
}

#[tokio::test(start_paused = true)]
async fn deltas_go_on_in_the_new_context() {
    let lab = Lab::new().await;
    let viewer = lab.join(1).await;
    let mut stream = lab.follow(viewer).await;
    lab.contexts.send_replace(context("other.example"));
    next(&mut stream).await.expect("everything");
    lab.join(2).await;
    let told = next(&mut stream).await.expect("a message");
    assert_eq!(told.peers_changed[0].name, "machine-2.other.example.");
}

#[tokio::test(start_paused = true)]
async fn a_full_map_without_peers_first_takes_them_back() {
    let lab = Lab::new().await;
    let (viewer, _) = (lab.join(1).await, lab.join(2).await);
    let mut stream = lab.follow(viewer).await;
    lab.must(Command::SetNodeExpiry { node: viewer, expires_at: Some(at(0)) }).await;
    let told = next(&mut stream).await.expect("a message");
    assert_eq!(told.peers_removed, [mesh_wire::NodeId(2)]);
    let told = next(&mut stream).await.expect("a message");
    assert!(told.peers.is_empty() && told.node.is_some_and(|node| node.expired));
}

/// Has a reader sleep over so many changes, each so long after the one before.
async fn check_overrun(changes: u16, gap: Duration) {
    let lab = Lab::new().await;
    let (viewer, node) = (lab.join(1).await, lab.join(2).await);
    let mut stream = lab.follow(viewer).await;
    for port in 1..=changes {
        lab.move_to(node, port).await;
        sleep(gap).await;
    }
    let told = next(&mut stream).await.expect("a message");
    assert!(told.derp_map.is_some() && told.peers[0].endpoints[0].port() == changes);
    check_quiet(&mut stream).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_slept_over_too_many_flushes_is_told_everything() {
    check_overrun(1_100, Duration::from_millis(300)).await;
}

#[tokio::test(start_paused = true)]
async fn more_epochs_than_are_kept_between_two_flushes_are_told_as_everything() {
    let changes = u16::try_from(EPOCHS_MAX).expect("not so many") + 1;
    check_overrun(changes, Duration::ZERO).await;
}
