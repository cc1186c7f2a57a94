//! What clients may use of a relay, and how long they may be silent or slow.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mesh_derp::{
    ClientFrame, ClientInfo, ClientLogin, DropReason, PacketKind, PeerGoneReason, Rate,
};
use mesh_keys::{DerpPrivate, MeshKey, NodePublic};
use mesh_relay::{
    CLIENT_BURST_MIN, CLIENT_RATE_MIN, KEEPALIVE_PERIOD, Limits, Refusal, Relay, WRITE_DEADLINE,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Event, join, node, open, relay};

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
    let write_timeout = 4 * WRITE_DEADLINE;
    relay.set_limits(Limits { write_timeout, ..Limits::default() });
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
    assert!(waited >= write_timeout && waited < 2 * write_timeout, "{waited:?}");

    let stats = relay.stats();
    assert_eq!(stats.write_timeouts.load(Ordering::Relaxed), 1);
    let lost: u64 = [DropReason::QueueFull, DropReason::WriteFailed, DropReason::DestinationGone]
        .iter()
        .map(|reason| stats.dropped(*reason).get(PacketKind::Data).packets)
        .sum();
    assert_eq!(lost, 100, "all that bob did not read is accounted for");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_take_in_the_greeting_is_cut_and_counted_once() {
    let relay = relay();
    let mut silent = open(&relay, 16);
    sleep(2 * WRITE_DEADLINE).await;
    assert_eq!(relay.stats().write_timeouts.load(Ordering::Relaxed), 1);
    let mut came = Vec::new();
    silent.read_to_end(&mut came).await.expect("an end");
    assert_eq!(came.len(), 16);
}

/// The longest that a small packet may wait beside a flood of its own sender: a pause of 20 ms until it is let into the
/// stream, and one until it is read.
const BESIDE_A_FLOOD: Duration = Duration::from_millis(45);

/// What one sends carol: when it was sent.
async fn send_time(from: &mut Client<DuplexStream>, carol: NodePublic, start: Instant) {
    let micros = u64::try_from(start.elapsed().as_micros()).expect("a short test");
    from.send(carol, &micros.to_be_bytes()).await;
}

#[tokio::test(start_paused = true)]
async fn who_floods_somebody_that_reads_nothing_is_read_less_and_others_hear_from_it_in_time() {
    let relay = relay();
    relay.set_limits(Limits { write_timeout: Duration::from_mins(1), ..Limits::default() });
    let (mut alice, mut carol) = (join(&relay, 1).await, join(&relay, 3).await);
    let bob = Client::log_in(open(&relay, 1000), &node(2)).await.expect("login");
    let waits = || relay.stats().congestion_waits.load(Ordering::Relaxed);
    let (start, bob_key, carol_key) = (Instant::now(), bob.key, carol.key);
    let flood = tokio::spawn(async move {
        for _ in 0..100 {
            for _ in 0..60 {
                alice.send(bob_key, &[0; 1400]).await;
            }
            send_time(&mut alice, carol_key, start).await;
        }
        alice
    });
    for _ in 0..100 {
        let Event::Packet(_, micros) = carol.next().await.expect("a frame") else {
            panic!("no packet")
        };
        let micros = u64::from_be_bytes(micros.try_into().expect("a time"));
        let waited = start.elapsed().checked_sub(Duration::from_micros(micros));
        assert!(waited.expect("it was sent before") <= BESIDE_A_FLOOD, "{waited:?}");
    }
    let mut alice = flood.await.expect("the relay reads");
    assert!(waits() > 50, "{}", waits());
    assert!(start.elapsed() > Duration::from_secs(1), "{:?}", start.elapsed());

    // The pauses shrink with what is sent then.
    for _ in 0..10 {
        alice.send(carol.key, b"calm").await;
        carol.expect(Event::Packet(alice.key, b"calm".to_vec())).await;
    }
    let before = waits();
    for _ in 0..10 {
        let start = Instant::now();
        alice.send(carol.key, b"calm").await;
        carol.expect(Event::Packet(alice.key, b"calm".to_vec())).await;
        assert!(start.elapsed().is_zero(), "{:?}", start.elapsed());
    }
    assert_eq!(waits(), before);
}

#[tokio::test(start_paused = true)]
async fn a_relay_of_the_mesh_is_read_whatever_it_floods() {
    let mesh_key = MeshKey::from_bytes([1; 32]).expect("a key");
    let (private, admit) = (DerpPrivate::from_bytes([0x52; 32]), Arc::new(|_: &NodePublic| true));
    let relay =
        Relay::with_mesh_key(private, Some(mesh_key.clone()), admit, CancellationToken::new());
    let info = ClientInfo { mesh_key: Some(mesh_key), ..ClientInfo::default() };
    let mut peer = Client::log_in_as(open(&relay, 64 << 10), &node(9), &info).await.expect("login");
    let bob = Client::log_in(open(&relay, 1000), &node(2)).await.expect("login");
    let start = Instant::now();
    let src = node(1).public();
    for _ in 0..6000 {
        let packet = ClientFrame::ForwardPacket { src, dst: bob.key, payload: &[0; 1400] };
        peer.send_frame(&packet).await;
    }
    peer.expect_silence().await;
    let dropped = relay.stats().dropped(DropReason::QueueFull).get(PacketKind::Data).packets;
    assert!(dropped > 3000, "{dropped}");
    assert_eq!(relay.stats().congestion_waits.load(Ordering::Relaxed), 0);
    assert!(start.elapsed() < Duration::from_millis(10), "{:?}", start.elapsed());
}

/// Sends bob numbered packets of 1400 bytes, and returns how long it took until he had them all.
async fn time_of_packets(relay: &Relay, packets: u64) -> Duration {
    let (mut alice, mut bob) = (join(relay, 1).await, join(relay, 2).await);
    let (alice_key, bob_key) = (alice.key, bob.key);
    let start = Instant::now();
    let sending = tokio::spawn(async move {
        for number in 0..packets {
            let mut payload = [0; 1400];
            payload[..8].copy_from_slice(&number.to_be_bytes());
            alice.send(bob_key, &payload).await;
        }
        alice
    });
    for number in 0..packets {
        let mut payload = vec![0; 1400];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        let mut event = bob.next().await.expect("a frame");
        if event == Event::KeepAlive {
            event = bob.next().await.expect("a frame");
        }
        assert_eq!(event, Event::Packet(alice_key, payload));
    }
    drop(sending.await.expect("the relay reads"));
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn who_sends_more_than_it_may_is_read_later_and_loses_nothing() {
    let relay = relay();
    assert!(time_of_packets(&relay, 500).await < Duration::from_millis(10));
    let rate = Rate { per_second: 100_000, burst: 0 };
    relay.set_limits(Limits { client: Some(rate), ..Limits::default() });
    let took = time_of_packets(&relay, 500).await;
    // With 37 bytes around each of them, and a burst of the longest frame.
    assert!((5500..=6600).contains(&took.as_millis()), "{took:?}");
    let waits = relay.stats().rate_waits.load(Ordering::Relaxed);
    assert!((5..100).contains(&waits), "{waits}");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_rate_is_felt_at_once() {
    let relay = relay();
    let limits =
        |per_second| Limits { client: Some(Rate { per_second, burst: 0 }), ..Limits::default() };
    relay.set_limits(limits(1));
    let changed = relay.clone();
    tokio::spawn(async move {
        sleep(Duration::from_mins(1)).await;
        changed.set_limits(limits(10_000_000));
    });
    let took = time_of_packets(&relay, 2000).await;
    // What has been read at the slowest rate that there is has to be paid for.
    let longest = CLIENT_BURST_MIN / CLIENT_RATE_MIN + 1;
    assert!((60..=60 + longest).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test]
async fn clients_are_told_their_rate() {
    let relay = relay();
    let rate = Rate { per_second: 1_000_000, burst: u64::MAX };
    relay.set_limits(Limits { client: Some(rate), ..Limits::default() });
    let (mut io, key) = (open(&relay, 4096), node(1));
    let login = ClientLogin::new(&key, &relay.public_key()).expect("login");
    let mut hello = Vec::new();
    login.encode_client_info([1; 24], &mesh_derp::ClientInfo::default(), &mut hello);
    io.write_all(&hello).await.expect("the relay reads");
    let mut client = Client::new(io, &key);
    client.expect(Event::ServerKey(relay.public_key())).await;
    let Event::ServerInfo(sealed) = client.next().await.expect("a frame") else {
        panic!("no server info")
    };
    let info = login.open_server_info(&sealed).expect("server info");
    assert_eq!(info.token_bucket_bytes_per_second, 1_000_000);
    // The Rust client has 32 bits for it.
    assert_eq!(info.token_bucket_bytes_burst, 0x7fff_ffff);
}

#[tokio::test]
async fn more_connections_than_are_accepted_are_closed_at_once() {
    let relay = relay();
    relay
        .set_limits(Limits { accept: Some(Rate { per_second: 1, burst: 3 }), ..Limits::default() });
    let service = relay.spawn_plain_listener(([127, 0, 0, 1], 0).into()).await.expect("a port");
    let start = Instant::now();
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(TcpStream::connect(service.local_addr()).await.expect("TCP"));
    }
    let stats = relay.stats();
    let refused = || stats.refused(Refusal::AcceptRate).load(Ordering::Relaxed);
    let accepted = || stats.connections.load(Ordering::Relaxed);
    while refused() + accepted() < 20 {
        sleep(Duration::from_millis(1)).await;
    }
    assert!((3..=4 + start.elapsed().as_secs()).contains(&accepted()), "{}", accepted());
    let mut last = streams.pop().expect("the last");
    assert!(matches!(last.read(&mut [0]).await, Ok(0) | Err(_)));

    relay.set_limits(Limits::default());
    let mut io = TcpStream::connect(service.local_addr()).await.expect("TCP");
    io.write_all(b"GET /derp/probe HTTP/1.0\r\n\r\n").await.expect("the relay reads");
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}
