//! Clients that are slow, silent or hostile.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh_derp::{ClientFrame, ClientInfo, ClientLogin, DropReason, PacketKind, PeerGoneReason};
use mesh_keys::NodePublic;
use mesh_relay::{KEEPALIVE_PERIOD, LOGIN_DEADLINE, PRE_LOGIN_MAX, WRITE_DEADLINE};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::{Instant, sleep};

use crate::client::{Client, Event, join, node, open, relay};

/// Waits until the relay closes a stream that it may have written to.
async fn end_of(io: &mut DuplexStream) {
    io.read_to_end(&mut Vec::new()).await.expect("an orderly end");
}

#[tokio::test(start_paused = true)]
async fn a_login_that_drips_is_cut_in_time() {
    let relay = relay();
    let start = Instant::now();
    let mut silent = open(&relay, 4096);
    end_of(&mut silent).await;
    assert_eq!(start.elapsed(), LOGIN_DEADLINE);

    let start = Instant::now();
    let mut dripping = open(&relay, 4096);
    let login = ClientLogin::new(&node(1), &relay.public_key()).expect("login");
    let mut hello = Vec::new();
    login.encode_client_info([1; 24], &ClientInfo::default(), &mut hello);
    for byte in hello {
        if dripping.write_all(&[byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    assert!(start.elapsed() <= LOGIN_DEADLINE + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_drips_is_cut_in_time() {
    let relay = relay();
    let (mut ours, theirs) = tokio::io::duplex(4096);
    let start = Instant::now();
    let serving = tokio::spawn(async move { relay.serve_connection(theirs).await });
    while ours.write_all(b"G").await.is_ok() && !serving.is_finished() {
        sleep(Duration::from_millis(500)).await;
    }
    assert!(start.elapsed() <= Duration::from_millis(10_500));
}

#[tokio::test(start_paused = true)]
async fn half_open_logins_are_bounded_and_the_next_one_waits() {
    let relay = relay();
    let silent: Vec<_> = (0..PRE_LOGIN_MAX).map(|_| open(&relay, 64)).collect();
    let start = Instant::now();
    let waiting = Client::log_in(open(&relay, 4096), &node(1)).await.expect("login");
    assert!(start.elapsed() >= LOGIN_DEADLINE);
    drop((silent, waiting));
}

#[tokio::test(start_paused = true)]
async fn clients_without_traffic_are_kept_alive() {
    let relay = relay();
    let mut alice = join(&relay, 1).await;
    for _ in 0..3 {
        let start = Instant::now();
        // The patience of the test's client is shorter than a keepalive.
        sleep(KEEPALIVE_PERIOD / 2).await;
        alice.expect(Event::KeepAlive).await;
        let waited = start.elapsed();
        assert!((58..=66).contains(&waited.as_secs()), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_in_nothing_is_cut_and_others_go_on() {
    let relay = relay();
    let mut alice = join(&relay, 1).await;
    let mut bob = Client::log_in(open(&relay, 1000), &node(2)).await.expect("login");
    let mut carol = join(&relay, 3).await;
    bob.send(alice.key, b"hello").await;
    alice.expect(Event::Packet(bob.key, b"hello".to_vec())).await;

    let start = Instant::now();
    for _ in 0..100 {
        alice.send(bob.key, &[0; 1400]).await;
    }
    alice.send(carol.key, b"meanwhile").await;
    carol.expect(Event::Packet(alice.key, b"meanwhile".to_vec())).await;
    alice.expect(Event::Gone(bob.key, PeerGoneReason::Disconnected)).await;
    let waited = start.elapsed();
    assert!(waited >= WRITE_DEADLINE && waited < 2 * WRITE_DEADLINE, "{waited:?}");

    let stats = relay.stats();
    assert_eq!(stats.write_timeouts.load(Ordering::Relaxed), 1);
    let lost: u64 = [DropReason::QueueFull, DropReason::WriteFailed, DropReason::DestinationGone]
        .iter()
        .map(|reason| stats.dropped(*reason).get(PacketKind::Data).packets)
        .sum();
    assert_eq!(lost, 100, "all that bob did not read is accounted for");
}

#[tokio::test]
async fn a_flood_of_pings_is_answered_as_fast_as_it_is_read() {
    let relay = relay();
    let mut alice = Client::log_in(open(&relay, 64), &node(1)).await.expect("login");
    for number in 0..1000_u64 {
        alice.send_frame(&ClientFrame::Ping(number.to_be_bytes())).await;
    }
    alice.send_frame(&ClientFrame::NotePreferred(true)).await;
    while relay.stats().home_clients.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    // Those on their way, the one being written, the one that waits: no pong for every ping.
    let mut pongs = 0;
    while let Ok(event) = tokio::time::timeout(Duration::from_millis(200), alice.next()).await {
        assert!(matches!(event.expect("a frame"), Event::Pong(_)));
        pongs += 1;
    }
    assert!((1..20).contains(&pongs), "{pongs} pongs");
}

#[tokio::test]
async fn malformed_frames_close_the_connection() {
    let relay = relay();
    for bytes in [
        &[0x04, 0xff, 0xff, 0xff, 0xff][..], // a packet of four gigabytes
        &[0x04, 0, 0, 0, 31],                // a packet without destination
        &[0x04, 0, 1, 0, 33],                // a packet one byte too long
        &[0x07, 0, 0, 0, 2],                 // two bytes of preference
        &[0x12, 0, 0, 0, 7],                 // a short ping
        &[0x12, 0, 0, 3, 0xe9],              // a long ping
        &[0x99, 0x7f, 0, 0, 0],              // an unknown frame that does not end
        &[0x10, 0, 0, 0, 0],                 // watch, without the mesh key
        &[[0x11, 0, 0, 0, 32].as_slice(), &[7; 32]].concat(), // close a peer
        &[[0x0a, 0, 0, 0, 64].as_slice(), &[7; 64]].concat(), // forward
    ] {
        let mut alice = join(&relay, 1).await;
        alice.write(bytes).await.expect("the relay reads");
        assert_eq!(alice.closed().await, [], "{bytes:02x?}");
    }
    join(&relay, 1).await.expect_silence().await;
}

#[tokio::test]
async fn unknown_frames_are_passed_over() {
    let relay = relay();
    let mut alice = join(&relay, 1).await;
    let mut unknown = vec![0x99];
    unknown.extend_from_slice(&500_000_u32.to_be_bytes());
    unknown.resize(5 + 500_000, 0x04);
    alice.write(&unknown).await.expect("the relay reads");
    alice.expect_silence().await;
}

#[tokio::test]
async fn malformed_logins_are_refused() {
    let relay = relay();
    let login = ClientLogin::new(&node(1), &relay.public_key()).expect("login");
    let mut hello = Vec::new();
    login.encode_client_info([1; 24], &ClientInfo::default(), &mut hello);
    let mut all_zero = hello.clone();
    all_zero[5..37].fill(0);
    let mut stolen = hello.clone();
    stolen[5..37].copy_from_slice(node(2).public().as_bytes());
    let mut tampered = hello;
    tampered[70] ^= 1;
    let before = [0x04, 0, 0, 0, 32].to_vec();
    let endless = [0x02, 0, 5, 0, 0].to_vec();
    for bytes in [all_zero, stolen, tampered, before, endless, b"GET / HTTP/1.1\r\n".to_vec()] {
        let mut io = open(&relay, 4096);
        io.write_all(&bytes).await.expect("the relay reads");
        end_of(&mut io).await;
    }
    assert_eq!(relay.stats().logins.load(Ordering::Relaxed), 0);
    assert!(!relay.is_connected(&NodePublic::default()));
}
