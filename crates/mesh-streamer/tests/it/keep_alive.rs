//! Signs of life, and that nothing else looks like one.

use std::time::Duration;

use futures_util::future::join_all;
use mesh_model::NodeId;
use mesh_streamer::{Compression, StreamerSettings};
use mesh_wire::{KEEP_ALIVE_JSON, MapResponse};
use tokio::time::sleep;

use crate::lab::{Lab, bytes_of, json_of, parse, timed_next};

const BOTH: [Compression; 2] = [Compression::None, Compression::Zstd];

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_the_same_bytes_again_and_again() {
    let lab = Lab::new().await;
    let viewer = lab.join(1).await;
    let StreamerSettings { keep_alive, keep_alive_jitter, .. } = StreamerSettings::default();
    for compression in BOTH {
        let mut stream = lab.open(viewer, compression).await;
        stream.next().await.expect("the stream begins");
        let (time, first) = timed_next(&mut stream).await;
        let first = first.expect("a keep-alive");
        assert_eq!(json_of(&bytes_of(&first), compression), KEEP_ALIVE_JSON.as_bytes());
        assert!(time >= keep_alive && time <= keep_alive + keep_alive_jitter, "{time:?}");
        for _ in 0..3 {
            assert_eq!(timed_next(&mut stream).await, (time, Some(first.clone())));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_is_a_sign_of_life_too() {
    let lab = Lab::new().await;
    let (viewer, node) = (lab.join(1).await, lab.join(2).await);
    let mut stream = lab.follow(viewer).await;
    for port in 1..=5 {
        sleep(Duration::from_secs(40)).await;
        lab.move_to(node, port).await;
        let (time, _) = timed_next(&mut stream).await;
        assert!(time < Duration::from_millis(20), "{time:?}");
    }
    let (time, _) = timed_next(&mut stream).await;
    assert!(time >= Duration::from_secs(50), "{time:?}");
}

#[tokio::test(start_paused = true)]
async fn streams_that_open_together_do_not_beat_together() {
    let lab = Lab::new().await;
    let mut streams = Vec::new();
    for machine in 1..=16 {
        lab.join(machine).await;
    }
    for node in (1..=16).map(NodeId) {
        streams.push(lab.follow(node).await);
    }
    let beats = join_all(streams.iter_mut().map(timed_next)).await;
    let mut times: Vec<_> = beats.into_iter().map(|(time, _)| time.as_millis()).collect();
    times.sort_unstable();
    times.dedup();
    assert_eq!(times.len(), 16);
}

/// A message whose JSON has this many bytes more than `{"Domain":""}`, and does not repeat itself: what repeats is
/// compressed away.
fn message(bytes: usize) -> MapResponse {
    let domain = ('0'..).filter(char::is_ascii_alphanumeric).take(bytes).collect();
    MapResponse { domain, ..MapResponse::default() }
}

#[tokio::test(start_paused = true)]
async fn no_other_frame_is_as_long_as_a_keep_alive() {
    let lab = Lab::new().await;
    let viewer = lab.join(1).await;
    for compression in BOTH {
        let mut stream = lab.open(viewer, compression).await;
        stream.next().await.expect("the stream begins");
        let keep_alive = bytes_of(&stream.next().await.expect("a keep-alive"));
        let mut moved = 0;
        for bytes in 1..60 {
            let message = message(bytes);
            let frame = bytes_of(&lab.streamer.encode(&message, compression));
            assert_ne!(frame.len(), keep_alive.len(), "{message:?}");
            let json = json_of(&frame, compression);
            assert_eq!(parse(&json), message);
            moved += usize::from(json.ends_with(b" "));
        }
        assert_eq!(moved, 1, "one of them would have been as long");
    }
}
