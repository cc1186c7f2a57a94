//! Who gets which packet, and who hears of whom.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mesh_derp::{ClientFrame, DropReason, PacketKind, PeerGoneReason, Tally};
use mesh_keys::NodePublic;
use tokio::time::sleep;

use crate::client::{Client, Event, join, node, open, relay, relay_for};

fn disco(text: &str) -> Vec<u8> {
    [b"TS\xf0\x9f\x92\xac".as_slice(), &[0; 56], text.as_bytes()].concat()
}

#[tokio::test]
async fn packets_cross_both_ways_in_order() {
    let relay = relay();
    let (mut alice, mut bob) = (join(&relay, 1).await, join(&relay, 2).await);
    for number in 0..20 {
        alice.send(bob.key, format!("to bob {number}").as_bytes()).await;
        bob.send(alice.key, &disco(&format!("to alice {number}"))).await;
    }
    for number in 0..20 {
        bob.expect(Event::Packet(alice.key, format!("to bob {number}").into())).await;
        alice.expect(Event::Packet(bob.key, disco(&format!("to alice {number}")))).await;
    }
    let stats = relay.stats();
    assert_eq!(stats.received.get(PacketKind::Disco).packets, 20);
    assert_eq!(stats.received.total().packets, 40);
    assert_eq!(stats.clients.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn packets_of_every_size_cross() {
    let relay = relay();
    let (mut alice, mut bob) = (join(&relay, 1).await, join(&relay, 2).await);
    for bytes in [0, 1, 1400, 16_384, 65_535, 65_536] {
        let payload = vec![7; bytes];
        alice.send(bob.key, &payload).await;
        bob.expect(Event::Packet(alice.key, payload)).await;
    }
    let myself = alice.key;
    alice.send(myself, b"note to myself").await;
    alice.expect(Event::Packet(myself, b"note to myself".to_vec())).await;
}

#[tokio::test]
async fn newest_connection_of_a_key_wins_and_then_whoever_spoke_last() {
    let relay = relay();
    let mut alice = join(&relay, 1).await;
    let mut old = join(&relay, 2).await;
    alice.send(old.key, b"first").await;
    old.expect(Event::Packet(alice.key, b"first".to_vec())).await;

    let mut new = join(&relay, 2).await;
    alice.send(new.key, b"second").await;
    new.expect(Event::Packet(alice.key, b"second".to_vec())).await;

    old.expect_silence().await;
    alice.send(old.key, b"third").await;
    old.expect(Event::Packet(alice.key, b"third".to_vec())).await;

    drop(old);
    while relay.stats().clients.load(Ordering::Relaxed) == 3 {
        tokio::task::yield_now().await;
    }
    alice.send(new.key, b"fourth").await;
    new.expect(Event::Packet(alice.key, b"fourth".to_vec())).await;
    alice.expect_silence().await;
}

#[tokio::test]
async fn those_it_sent_to_hear_that_a_peer_is_gone_when_its_last_connection_ends() {
    let relay = relay();
    let (mut bob, mut carol) = (join(&relay, 2).await, join(&relay, 3).await);
    let mut first = join(&relay, 1).await;
    first.send(bob.key, b"hello").await;
    first.send(bob.key, b"again").await;
    bob.expect(Event::Packet(first.key, b"hello".to_vec())).await;
    bob.expect(Event::Packet(first.key, b"again".to_vec())).await;
    let (key, second) = (first.key, join(&relay, 1).await);

    drop(first);
    while relay.stats().clients.load(Ordering::Relaxed) == 4 {
        tokio::task::yield_now().await;
    }
    bob.expect_silence().await;
    drop(second);
    bob.expect(Event::Gone(key, PeerGoneReason::Disconnected)).await;
    carol.expect_silence().await;
    assert!(!relay.is_connected(&key));
}

#[tokio::test(start_paused = true)]
async fn only_disco_packets_to_nobody_are_answered_and_not_all() {
    let relay = relay();
    let mut alice = join(&relay, 1).await;
    let nobody = |number: u8| node(100 + number).public();
    for (pause, burst) in [(0, 3), (1, 1), (30, 3)] {
        sleep(Duration::from_secs(pause)).await;
        for number in 0..10 {
            alice.send(nobody(number), b"data").await;
            alice.send(nobody(number), &disco("anybody there?")).await;
        }
        for key in (0..burst).map(nobody) {
            alice.expect(Event::Gone(key, PeerGoneReason::NotHere)).await;
        }
        alice.expect_silence().await;
    }
    let dropped = relay.stats().dropped(DropReason::UnknownDestination);
    assert_eq!(PacketKind::ALL.map(|kind| dropped.get(kind).packets), [30, 30]);
}

#[tokio::test]
async fn home_is_counted() {
    let relay = relay();
    let home = || relay.stats().home_clients.load(Ordering::Relaxed);
    let mut alice = join(&relay, 1).await;
    alice.send_frame(&ClientFrame::NotePreferred(true)).await;
    alice.send_frame(&ClientFrame::NotePreferred(true)).await;
    alice.expect_silence().await;
    assert_eq!(home(), 1);
    drop(alice);
    while home() == 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(home(), 0);
}

#[tokio::test]
async fn only_admitted_nodes_get_in() {
    let alice = node(1).public();
    let relay = relay_for(move |key: &NodePublic| *key == alice);
    join(&relay, 1).await.expect_silence().await;
    assert!(Client::log_in(open(&relay, 4096), &node(2)).await.is_err());
    assert_eq!(relay.stats().logins_refused.load(Ordering::Relaxed), 1);
    assert!(!relay.is_connected(&node(2).public()));
}

#[tokio::test]
async fn a_removed_node_is_cut_at_once_and_stays_out() {
    let removed = Arc::new(AtomicBool::new(false));
    let (bob_key, is_removed) = (node(2).public(), Arc::clone(&removed));
    let relay =
        relay_for(move |key: &NodePublic| *key != bob_key || !is_removed.load(Ordering::Relaxed));
    let (mut alice, mut bob) = (join(&relay, 1).await, join(&relay, 2).await);
    let mut bob_again = join(&relay, 2).await;
    bob.send(alice.key, b"hello").await;
    alice.expect(Event::Packet(bob.key, b"hello".to_vec())).await;

    removed.store(true, Ordering::Relaxed);
    assert_eq!(relay.disconnect(&bob.key), 2);
    assert_eq!(bob.closed().await, []);
    assert_eq!(bob_again.closed().await, []);
    alice.expect(Event::Gone(bob.key, PeerGoneReason::Disconnected)).await;
    assert!(Client::log_in(open(&relay, 4096), &node(2)).await.is_err());
    alice.expect_silence().await;
}

/// A receiver that has stopped reading loses the oldest packets, and finds the newest when it reads on.
#[tokio::test]
async fn a_full_queue_gives_up_its_oldest_packets() {
    const PACKETS: u64 = 2000;
    let relay = relay();
    let mut alice = join(&relay, 1).await;
    let mut bob = Client::log_in(open(&relay, 2000), &node(2)).await.expect("login");
    for number in 0..PACKETS {
        let mut payload = vec![0; 1000];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        alice.send(bob.key, &payload).await;
    }
    alice.expect_silence().await;
    let dropped = relay.stats().dropped(DropReason::QueueFull).get(PacketKind::Data);
    assert_eq!(dropped.bytes, dropped.packets * 1000);

    let mut numbers = Vec::new();
    while numbers.last() != Some(&(PACKETS - 1)) {
        let Event::Packet(_, payload) = bob.next().await.expect("a frame") else {
            panic!("bob gets packets only")
        };
        numbers.push(u64::from_be_bytes(payload[..8].try_into().expect("a number")));
    }
    assert_eq!(numbers.len() as u64 + dropped.packets, PACKETS);
    assert!(numbers.is_sorted());
    let newest = &numbers[numbers.len() - 32..];
    assert!(newest.iter().copied().eq(PACKETS - 32..PACKETS), "the newest 32 waited: {newest:?}");
    bob.expect_silence().await;
    assert_eq!(
        relay.stats().sent.total(),
        Tally { packets: numbers.len() as u64, bytes: numbers.len() as u64 * 1000 }
    );
}
