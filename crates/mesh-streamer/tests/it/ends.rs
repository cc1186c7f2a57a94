//! How streams end.

use std::time::Duration;

use mesh_state::{Command, Outcome, Registration};
use mesh_streamer::Compression;
use mesh_testkit::{at, node_key, registration};

use crate::lab::{Lab, check_quiet, context, next, ports, timed_next};

#[tokio::test(start_paused = true)]
async fn a_newer_stream_of_the_node_ends_the_older_one() {
    let lab = Lab::new().await;
    let (viewer, node) = (lab.join(1).await, lab.join(2).await);
    let mut older = lab.follow(viewer).await;
    let mut newer = lab.follow(viewer).await;
    assert_eq!(next(&mut older).await, None);
    lab.move_to(node, 7).await;
    assert_eq!(ports(&next(&mut newer).await.expect("it goes on")), [7]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_overtaken_before_its_first_frame_has_none() {
    let lab = Lab::new().await;
    let viewer = lab.join(1).await;
    let mut older = lab.open(viewer, Compression::None).await;
    lab.follow(viewer).await;
    assert_eq!(next(&mut older).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_node_is_told_goodbye() {
    let lab = Lab::new().await;
    let viewer = lab.join(1).await;
    let mut stream = lab.follow(viewer).await;
    lab.must(Command::DeleteNode { node: viewer }).await;
    let last = next(&mut stream).await.expect("a goodbye");
    assert!(last.node.is_some_and(|node| node.expired));
    assert_eq!(next(&mut stream).await, None);
    assert_eq!(next(&mut stream).await, None, "and it stays over");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_deleted_before_its_first_frame_has_none() {
    let lab = Lab::new().await;
    let viewer = lab.join(1).await;
    let mut stream = lab.open(viewer, Compression::None).await;
    lab.must(Command::DeleteNode { node: viewer }).await;
    assert_eq!(next(&mut stream).await, None);
    assert_eq!(lab.streamer.once(viewer, Compression::None), None);
}

#[tokio::test(start_paused = true)]
async fn a_rotated_key_ends_the_stream_of_the_old_one_without_a_word() {
    let lab = Lab::new().await;
    let viewer = lab.join(1).await;
    let mut streams = [lab.follow(viewer).await];
    lab.rotate(1, 10).await;
    assert_eq!(next(&mut streams[0]).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_rotated_key_is_not_told_with_a_new_context_either() {
    let lab = Lab::new().await;
    let viewer = lab.join(1).await;
    let mut stream = lab.follow(viewer).await;
    lab.rotate(1, 10).await;
    lab.contexts.send_replace(context("other.example"));
    assert_eq!(next(&mut stream).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_logs_out_is_told_that_its_key_has_expired() {
    let lab = Lab::new().await;
    let viewer = lab.join(1).await;
    let mut stream = lab.follow(viewer).await;
    let log_out = Registration { expiry: Some(at(-1)), ..registration(1, 1) };
    assert_eq!(lab.must(Command::Register(Box::new(log_out))).await, Outcome::LoggedOut);
    let told = next(&mut stream).await.expect("a message");
    assert!(told.node.is_some_and(|node| node.expired && node.key == node_key(1)));
    lab.must(Command::SetNodeExpiry { node: viewer, expires_at: None }).await;
    assert_eq!(next(&mut stream).await, None, "it holds the node no longer");
}

#[tokio::test(start_paused = true)]
async fn streams_end_at_once_when_the_server_stops() {
    let lab = Lab::new().await;
    let (viewer, node) = (lab.join(1).await, lab.join(2).await);
    let mut idle = lab.follow(node).await;
    let mut paced = lab.follow(viewer).await;
    lab.move_to(node, 7).await;
    lab.stop.cancel();
    for stream in [&mut idle, &mut paced] {
        assert_eq!(timed_next(stream).await, (Duration::ZERO, None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_node_is_untouched_goes_on() {
    let lab = Lab::new().await;
    let viewer = lab.join(1).await;
    let mut stream = lab.follow(viewer).await;
    lab.must(Command::RenameNode { node: viewer, name: "web".to_owned() }).await;
    assert!(next(&mut stream).await.is_some_and(|told| told.node.is_some()));
    check_quiet(&mut stream).await;
}
