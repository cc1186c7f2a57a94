//! Relays that go, come back, or are not there.

use mesh_keys::NodePublic;
use mesh_wire::DerpNode;
use tokio::net::TcpListener;

use crate::relays::{Client, Identity, TestRelay, pinned_node, tell};

#[tokio::test]
async fn a_client_comes_back_to_a_relay_that_was_restarted() {
    let identity = Identity::new("relay.example");
    let relay = TestRelay::start(&identity).await;
    let addr = relay.addr();
    let nodes = vec![pinned_node(addr, &identity)];
    let mut alice = Client::spawn_connected(1, nodes.clone()).await;
    relay.stop().await;
    let cause = alice.expect_disconnected().await;
    assert!(tell(&cause).starts_with("connection to the relay ended"), "{cause}");
    let cause = alice.expect_disconnected().await;
    assert!(tell(&cause).contains("cannot reach the relay: "), "{cause}");
    assert!(!alice.handle.status().is_connected);

    let _relay = TestRelay::start_at(addr, &identity, |_: &NodePublic| true).await;
    let mut bob = Client::spawn_connected(2, nodes).await;
    while !alice.handle.status().is_connected {
        alice.next().await;
    }
    alice.send(bob.key, b"back");
    bob.expect_packet(alice.key, b"back").await;
}

#[tokio::test]
async fn a_client_that_is_not_admitted_keeps_asking() {
    let identity = Identity::new("relay.example");
    let addr = ([127, 0, 0, 1], 0).into();
    let relay = TestRelay::start_at(addr, &identity, |_: &NodePublic| false).await;
    let mut alice = Client::spawn(1, vec![pinned_node(relay.addr(), &identity)]);
    for _ in 0..3 {
        let told = tell(&alice.expect_disconnected().await);
        assert!(told.contains(": connection ended within the login: "), "{told}");
    }
}

/// Connects to a region whose second node is the first that works, by the first attempt.
async fn check_failover(first: DerpNode) {
    let identity = Identity::new("relay.example");
    let relay = TestRelay::start(&identity).await;
    let second = pinned_node(relay.addr(), &identity);
    Client::spawn_connected(1, vec![first, second]).await;
}

#[tokio::test]
async fn the_second_node_serves_when_the_first_is_down() {
    let identity = Identity::new("relay.example");
    let relay = TestRelay::start(&identity).await;
    let first = pinned_node(relay.addr(), &identity);
    relay.stop().await;
    check_failover(first).await;
}

#[tokio::test]
async fn the_second_node_serves_when_the_first_has_no_relay() {
    check_failover(DerpNode { stun_only: true, ..DerpNode::default() }).await;
    let nowhere = || "none".to_owned();
    check_failover(DerpNode { ipv4: nowhere(), ipv6: nowhere(), ..DerpNode::default() }).await;
}

#[tokio::test]
async fn the_second_node_serves_when_the_first_hangs() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = silent.local_addr().expect("an address");
    check_failover(pinned_node(addr, &Identity::new("relay.example"))).await;
}
