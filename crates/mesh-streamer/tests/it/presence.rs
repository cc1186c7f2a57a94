//! Who counts as online.

use std::time::Duration;

use mesh_streamer::StreamerSettings;
use tokio::time::{sleep, timeout};

use crate::lab::{Lab, QUIET, check_quiet, next};

/// The time between "not yet" and "done".
const BLINK: Duration = Duration::from_millis(5);

fn grace() -> Duration {
    StreamerSettings::default().offline_grace
}

#[tokio::test(start_paused = true)]
async fn a_node_goes_offline_a_while_after_its_stream_has_ended() {
    let lab = Lab::new().await;
    let (viewer, node) = (lab.join(1).await, lab.join(2).await);
    let theirs = lab.follow(node).await;
    let mut stream = lab.follow(viewer).await;
    drop(theirs);
    let said = timeout(grace().saturating_sub(BLINK), stream.next()).await;
    assert!(said.is_err(), "{said:?}");
    let told = next(&mut stream).await.expect("a message");
    assert_eq!(told.peers_changed_patch[0].online, Some(false));
    assert!(lab.node(node).is_some_and(|node| node.session.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_in_time_was_never_away() {
    let lab = Lab::new().await;
    let (viewer, node) = (lab.join(1).await, lab.join(2).await);
    let mut stream = lab.follow(viewer).await;
    for _ in 0..3 {
        drop(lab.follow(node).await);
        sleep(grace().saturating_sub(QUIET * 2)).await;
        check_quiet(&mut stream).await;
    }
    let _last = lab.follow(node).await;
    sleep(grace() * 2).await;
    check_quiet(&mut stream).await;
    assert!(lab.node(node).is_some_and(|node| node.session.is_some()));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_older_stream_does_not_take_the_node_offline() {
    let lab = Lab::new().await;
    let node = lab.join(1).await;
    let older = lab.follow(node).await;
    let newer = lab.follow(node).await;
    drop(older);
    sleep(grace() + BLINK).await;
    assert!(lab.node(node).is_some_and(|node| node.session.is_some()));
    drop(newer);
    sleep(grace() + BLINK).await;
    assert!(lab.node(node).is_some_and(|node| node.session.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_never_read_counts_too() {
    let lab = Lab::new().await;
    let node = lab.join(1).await;
    drop(lab.open(node, mesh_streamer::Compression::Zstd).await);
    sleep(grace() + BLINK).await;
    assert!(lab.node(node).is_some_and(|node| node.session.is_none()));
}
