//! Packets between clients of one relay.

use std::sync::atomic::Ordering;

use mesh_derp::PeerGoneReason;
use mesh_derp_client::Event;
use mesh_keys::NodePublic;

use crate::relays::{Client, Identity, TestRelay, eventually, pinned_node};

async fn expect_gone(client: &mut Client, expected: NodePublic, expected_reason: PeerGoneReason) {
    let event = client.next().await;
    let Event::PeerGone { key, reason, .. } = event else { panic!("{event:?}") };
    assert_eq!((key, reason), (expected, expected_reason));
}

#[tokio::test]
async fn two_clients_exchange_packets_in_their_order() {
    let identity = Identity::new("relay.example");
    let relay = TestRelay::start(&identity).await;
    let nodes = vec![pinned_node(relay.addr(), &identity)];
    let mut alice = Client::spawn_connected(1, nodes.clone()).await;
    let mut bob = Client::spawn_connected(2, nodes).await;
    for round in 0..100_u8 {
        // No more at once than the relay queues for a client.
        for number in 0..16_u8 {
            let packet = [[round, number].as_slice(), &[7; 1400]].concat();
            alice.send(bob.key, &packet);
            bob.send(alice.key, &packet);
        }
        for number in 0..16_u8 {
            let packet = [[round, number].as_slice(), &[7; 1400]].concat();
            alice.expect_packet(bob.key, &packet).await;
            bob.expect_packet(alice.key, &packet).await;
        }
    }
    let longest = vec![9; mesh_derp::PACKET_BYTES_MAX];
    alice.send(bob.key, &longest);
    bob.expect_packet(alice.key, &longest).await;
    let status = alice.handle.status();
    assert_eq!(status.sent.map(|tally| tally.packets), [0, 1601]);
    assert_eq!(status.dropped.map(|tally| tally.packets), [0, 0]);
}

#[tokio::test]
async fn a_packet_waits_for_the_first_connection() {
    let identity = Identity::new("relay.example");
    let relay = TestRelay::start(&identity).await;
    let nodes = vec![pinned_node(relay.addr(), &identity)];
    let mut bob = Client::spawn_connected(2, nodes.clone()).await;
    let alice = Client::spawn(1, nodes);
    alice.send(bob.key, b"at once");
    bob.expect_packet(alice.key, b"at once").await;
}

#[tokio::test]
async fn a_peer_that_leaves_or_never_was_here_is_told() {
    let identity = Identity::new("relay.example");
    let relay = TestRelay::start(&identity).await;
    let nodes = vec![pinned_node(relay.addr(), &identity)];
    let mut alice = Client::spawn_connected(1, nodes.clone()).await;
    let bob = Client::spawn_connected(2, nodes).await;
    bob.send(alice.key, b"here I am");
    alice.expect_packet(bob.key, b"here I am").await;
    drop(bob.handle);
    expect_gone(&mut alice, bob.key, PeerGoneReason::Disconnected).await;

    let disco = [b"TS\xf0\x9f\x92\xac".as_slice(), &[0; 80]].concat();
    alice.send(bob.key, &disco);
    expect_gone(&mut alice, bob.key, PeerGoneReason::NotHere).await;
    assert_eq!(alice.handle.status().sent.map(|tally| tally.packets), [1, 0]);
}

#[tokio::test]
async fn the_relay_knows_whose_home_it_is() {
    let identity = Identity::new("relay.example");
    let relay = TestRelay::start(&identity).await;
    let nodes = vec![pinned_node(relay.addr(), &identity)];
    let homes = |expected: u64| {
        let stats = relay.relay.stats();
        move || stats.home_clients.load(Ordering::Relaxed) == expected
    };
    let alice = Client::spawn_with(1, nodes, rustls::RootCertStore::empty(), true);
    eventually("home from the start", homes(1)).await;
    alice.handle.set_home(false);
    eventually("home no more", homes(0)).await;
    alice.handle.set_home(true);
    eventually("home again", homes(1)).await;
}

#[tokio::test]
async fn a_client_that_nobody_holds_or_listens_to_leaves() {
    let identity = Identity::new("relay.example");
    let relay = TestRelay::start(&identity).await;
    let nodes = vec![pinned_node(relay.addr(), &identity)];
    let alice = Client::spawn_connected(1, nodes.clone()).await;
    let bob = Client::spawn_connected(2, nodes).await;
    let (alice_key, bob_key) = (alice.key, bob.key);
    drop(alice.handle);
    eventually("nobody holds it", || !relay.relay.is_connected(&alice_key)).await;
    drop(bob.events);
    eventually("nobody listens", || !relay.relay.is_connected(&bob_key)).await;
}
