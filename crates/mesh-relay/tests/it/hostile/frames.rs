//! Who is logged in, and then sends what it likes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh_derp::ClientFrame;
use mesh_relay::Refusal;
use tokio::time::sleep;

use super::Scene;
use crate::client::{Client, Event, join, node, open};

#[tokio::test]
async fn frames_that_nobody_may_send_end_the_connection() {
    let mut scene = Scene::new().await;
    let bad = [
        &[0x04, 0xff, 0xff, 0xff, 0xff][..], // a packet of four gigabytes
        &[0x04, 0, 0, 0, 31],                // a packet without destination
        &[0x04, 0, 1, 0, 33],                // a packet one byte too long
        &[0x07, 0, 0, 0, 2],                 // two bytes of preference
        &[0x12, 0, 0, 0, 7],                 // a short ping
        &[0x12, 0, 0, 3, 0xe9],              // a long ping
        &[0x99, 0xff, 0xff, 0xff, 0xff],     // an unknown frame that does not end
        &[0x10, 0, 0, 0, 0],                 // watch, without the mesh key
        &[[0x11, 0, 0, 0, 32].as_slice(), &[7; 32]].concat(), // close a peer
        &[[0x0a, 0, 0, 0, 64].as_slice(), &[7; 64]].concat(), // forward
    ];
    for (refused, bytes) in (1..).zip(bad) {
        let mut mallory = join(&scene.relay, 66).await;
        mallory.write(bytes).await.expect("the relay reads");
        assert_eq!(mallory.closed().await, [], "{bytes:02x?}");
        scene.expect_refused(Refusal::Frame, refused).await;
    }
}

#[tokio::test]
async fn unknown_frames_are_passed_over() {
    let mut scene = Scene::new().await;
    let mut mallory = join(&scene.relay, 66).await;
    let mut unknown = vec![0x99];
    unknown.extend_from_slice(&(1_u32 << 20).to_be_bytes());
    unknown.resize(5 + (1 << 20), 0x04);
    for _ in 0..10 {
        mallory.write(&unknown).await.expect("the relay reads");
        scene.talk().await;
    }
    mallory.expect_silence().await;
}

#[tokio::test(start_paused = true)]
async fn half_a_frame_is_waited_for_and_holds_up_nobody() {
    let mut scene = Scene::new().await;
    let mut mallory = join(&scene.relay, 66).await;
    let mut packet = Vec::new();
    let payload = vec![7; 60_000];
    ClientFrame::SendPacket { dst: scene.bob.key, payload: &payload }.encode(&mut packet);
    mallory.write(&packet[..50_000]).await.expect("the relay reads");
    for _ in 0..10 {
        sleep(Duration::from_secs(3)).await;
        scene.talk().await;
    }
    mallory.write(&packet[50_000..]).await.expect("the relay reads");
    scene.bob.expect(Event::Packet(mallory.key, payload)).await;
}

#[tokio::test]
async fn a_flood_of_pings_is_answered_as_fast_as_it_is_read() {
    let mut scene = Scene::new().await;
    let relay = &scene.relay;
    let mut mallory = Client::log_in(open(relay, 64), &node(66)).await.expect("login");
    for number in 0..1000_u64 {
        mallory.send_frame(&ClientFrame::Ping(number.to_be_bytes())).await;
    }
    mallory.send_frame(&ClientFrame::NotePreferred(true)).await;
    while relay.stats().home_clients.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    scene.talk().await;
    // Those on their way, the one being written, the one that waits: no pong for every ping.
    let mut pongs = 0;
    while let Ok(event) = tokio::time::timeout(Duration::from_millis(200), mallory.next()).await {
        assert!(matches!(event.expect("a frame"), Event::Pong(_)));
        pongs += 1;
    }
    assert!((1..20).contains(&pongs), "{pongs} pongs");
    scene.talk().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_frames_without_end_leave_room_for_others() {
    let mut scene = Scene::new().await;
    let mut mallory = join(&scene.relay, 66).await;
    let mut frames = Vec::new();
    for number in 0..10_000_u32 {
        ClientFrame::NotePreferred(number % 2 == 0).encode(&mut frames);
        ClientFrame::SendPacket { dst: node(67).public(), payload: &[] }.encode(&mut frames);
        ClientFrame::Pong([0; 8]).encode(&mut frames);
    }
    let flood = tokio::spawn(async move {
        for _ in 0..20 {
            mallory.write(&frames).await.expect("the relay reads");
        }
        mallory.expect_silence().await;
    });
    while !flood.is_finished() {
        scene.talk().await;
    }
    flood.await.expect("the relay reads all of it");
    assert!(scene.said > 10, "{}", scene.said);
}

/// What others lose by it is in `limits`, and what of it in `delivery`.
#[tokio::test(start_paused = true)]
async fn who_never_reads_is_cut() {
    let mut scene = Scene::new().await;
    let mallory = Client::log_in(open(&scene.relay, 1000), &node(66)).await.expect("login");
    for _ in 0..10 {
        for _ in 0..1000 {
            scene.alice.send(mallory.key, &[7; 1400]).await;
        }
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(scene.relay.stats().write_timeouts.load(Ordering::Relaxed), 1);
    assert!(!scene.relay.is_connected(&mallory.key));
    scene.alice.expect_silence().await;
    scene.talk().await;
}
