//! What is told, and when: at once, but not more often than a client can use.

use std::time::Duration;

use mesh_streamer::Compression;
use tokio::time::{Instant, sleep, timeout};

use crate::lab::{Lab, QUIET, check_quiet, next, ports, timed_next};

#[tokio::test(start_paused = true)]
async fn the_first_frame_is_the_full_map_whatever_has_happened_since_it_was_opened() {
    let lab = Lab::new().await;
    let (viewer, node) = (lab.join(1).await, lab.join(2).await);
    let mut stream = lab.open(viewer, Compression::None).await;
    lab.move_to(node, 7).await;
    let first = next(&mut stream).await.expect("the stream begins");
    assert_eq!(first.node.map(|node| node.id.0), Some(1));
    assert_eq!(first.peers[0].endpoints[0].port(), 7);
    check_quiet(&mut stream).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_is_told_soon_after_a_quiet_time() {
    let lab = Lab::new().await;
    let (viewer, node) = (lab.join(1).await, lab.join(2).await);
    let mut stream = lab.follow(viewer).await;
    sleep(QUIET).await;
    lab.move_to(node, 7).await;
    let (time, frame) = timed_next(&mut stream).await;
    assert!(frame.is_some() && time < Duration::from_millis(20), "{time:?}");
}

#[tokio::test(start_paused = true)]
async fn what_changes_while_nobody_reads_is_one_message() {
    let lab = Lab::new().await;
    let (viewer, node) = (lab.join(1).await, lab.join(2).await);
    let mut stream = lab.follow(viewer).await;
    for port in 1..=1_000 {
        lab.move_to(node, port).await;
    }
    let message = next(&mut stream).await.expect("a message");
    assert_eq!(ports(&message), [1_000]);
    check_quiet(&mut stream).await;
}

#[tokio::test(start_paused = true)]
async fn messages_keep_a_distance_while_changes_keep_coming() {
    let lab = Lab::new().await;
    let (viewer, node) = (lab.join(1).await, lab.join(2).await);
    let mut stream = lab.follow(viewer).await;
    let changes = async {
        for port in 1..=1_000 {
            lab.move_to(node, port).await;
            sleep(Duration::from_millis(5)).await;
        }
    };
    let reader = async {
        let (mut told, mut last) = (Vec::new(), 0);
        while last < 1_000 {
            last = ports(&next(&mut stream).await.expect("the stream goes on"))[0];
            told.push(Instant::now());
        }
        told
    };
    let ((), told) = tokio::join!(changes, reader);
    let gaps: Vec<_> = told.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    assert!(gaps.iter().all(|gap| (25..=40).contains(gap)), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn changes_that_make_no_difference_are_not_told() {
    let lab = Lab::new().await;
    let (viewer, node) = (lab.join(1).await, lab.join(2).await);
    lab.move_to(node, 7).await;
    let mut stream = lab.follow(viewer).await;
    lab.move_to(node, 7).await;
    lab.move_to(viewer, 9).await;
    lab.register(3, 3).await;
    check_quiet(&mut stream).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_when_a_reader_gives_up_and_comes_back() {
    let lab = Lab::new().await;
    let (viewer, node) = (lab.join(1).await, lab.join(2).await);
    let mut stream = lab.follow(viewer).await;
    lab.move_to(node, 7).await;
    let too_soon = timeout(Duration::from_millis(1), stream.next()).await;
    assert!(too_soon.is_err(), "it is held back after the first message");
    let message = next(&mut stream).await.expect("a message");
    assert_eq!((ports(&message), message.node), (vec![7], None));
}
