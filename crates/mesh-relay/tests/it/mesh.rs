//! Relays of one mesh: over TLS with each other, their clients over streams in memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use mesh_derp::{ClientFrame, ClientInfo, DropReason, PacketKind, PeerGoneReason, PeerPresent};
use mesh_keys::{DerpPrivate, MeshKey, NodePublic};
use mesh_relay::{
    Certificate, MESH_WRITE_DEADLINE, MeshHandle, MeshPeer, Relay, ServiceHandle,
    generate_self_signed,
};
use rustls::RootCertStore;
use tokio::io::DuplexStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Event, join, node, open};

type Joined = Client<DuplexStream>;

/// How long a packet of a probe may take until the next is sent.
const PROBE_PERIOD: Duration = Duration::from_millis(20);

/// How long a test waits between two looks at what cannot tell it.
const LOOK_PERIOD: Duration = Duration::from_millis(2);

fn mesh_key(number: u8) -> MeshKey {
    MeshKey::from_bytes([number; 32]).expect("a key")
}

/// A relay that listens on a port of its own.
struct Site {
    relay: Relay,
    service: ServiceHandle,
    cancel: CancellationToken,
}

impl Site {
    async fn start(number: u8) -> Self {
        Self::start_at(number, ([127, 0, 0, 1], 0).into(), mesh_key(1)).await
    }

    #[expect(clippy::disallowed_methods, reason = "certificates are valid by the system's time")]
    async fn start_at(number: u8, addr: SocketAddr, key: MeshKey) -> Self {
        let cancel = CancellationToken::new();
        let (private, admission) =
            (DerpPrivate::from_bytes([number; 32]), Arc::new(|_: &NodePublic| true));
        let relay = Relay::with_mesh_key(private, Some(key), admission, cancel.clone());
        let now = SystemTime::now();
        let pem = generate_self_signed("127.0.0.1", now).expect("a certificate");
        let tls = Certificate::from_pem(&pem).expect("a certificate");
        let tls = tls.server_config(&relay.public_key(), now).expect("a usable certificate");
        let service = relay.spawn_tls_listener(addr, tls).await.expect("a port");
        Self { relay, service, cancel }
    }

    fn spawn_mesh(&self, other: &Self) -> MeshHandle {
        let peer = format!("{} any-certificate", other.service.local_addr());
        let peer: MeshPeer = peer.parse().expect("a relay");
        self.relay.spawn_mesh(&peer, Arc::new(RootCertStore::empty())).expect("a mesh key")
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.relay.stats().dropped(reason).total().packets
    }

    async fn stop(self) {
        self.cancel.cancel();
        self.service.stopped().await;
    }
}

/// Two relays of a mesh.
struct Mesh {
    a: Site,
    b: Site,
    _links: [MeshHandle; 2],
}

impl Mesh {
    async fn start() -> Self {
        let (a, b) = (Site::start(0x0a).await, Site::start(0x0b).await);
        let links = [a.spawn_mesh(&b), b.spawn_mesh(&a)];
        Self { a, b, _links: links }
    }
}

/// Sends until something comes, and takes in all of it.
async fn probe(from: &mut Joined, to: &mut Joined) {
    for number in 0..2000_u16 {
        let payload = format!("probe {number}").into_bytes();
        from.send(to.key, &payload).await;
        let Ok(came) = timeout(PROBE_PERIOD, to.next()).await else { continue };
        let last = Event::Packet(from.key, payload);
        let mut came = came.expect("a frame");
        while came != last {
            came = to.next().await.expect("a frame");
        }
        return;
    }
    panic!("no way from one relay to the other");
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if is_so() {
            return;
        }
        sleep(LOOK_PERIOD).await;
    }
    panic!("{what}");
}

fn disco(text: &str) -> Vec<u8> {
    [b"TS\xf0\x9f\x92\xac".as_slice(), &[0; 56], text.as_bytes()].concat()
}

#[tokio::test]
async fn packets_cross_both_ways_in_order() {
    let mesh = Mesh::start().await;
    let (mut alice, mut bob) = (join(&mesh.a.relay, 1).await, join(&mesh.b.relay, 2).await);
    probe(&mut alice, &mut bob).await;
    probe(&mut bob, &mut alice).await;
    for number in 0..500 {
        alice.send(bob.key, format!("to bob {number}").as_bytes()).await;
        bob.send(alice.key, &vec![7; number]).await;
    }
    for number in 0..500 {
        bob.expect(Event::Packet(alice.key, format!("to bob {number}").into())).await;
        alice.expect(Event::Packet(bob.key, vec![7; number])).await;
    }
    alice.send(bob.key, &vec![9; 65_536]).await;
    bob.expect(Event::Packet(alice.key, vec![9; 65_536])).await;
    alice.send(bob.key, &disco("hello")).await;
    bob.expect(Event::Packet(alice.key, disco("hello"))).await;

    // Counted behind the delivery, which the client may see first.
    let [sent, came] = [&mesh.a.relay.stats().forwarded, &mesh.b.relay.stats().received_forwarded];
    until("disco is counted", || came.get(PacketKind::Disco).packets == 1).await;
    assert_eq!(sent.get(PacketKind::Disco).packets, 1);
    assert!(came.get(PacketKind::Data).packets >= 502, "{came:?}");
    assert_eq!(sent.get(PacketKind::Data), came.get(PacketKind::Data));
    assert_eq!(mesh.a.relay.stats().mesh_peers.load(Ordering::Relaxed), 1);
    assert_eq!(mesh.b.dropped(DropReason::UnknownForwarded), 0);
}

#[tokio::test]
async fn those_it_sent_to_hear_that_a_peer_is_gone_from_the_mesh() {
    let mesh = Mesh::start().await;
    let (mut bob, mut carol) = (join(&mesh.b.relay, 2).await, join(&mesh.b.relay, 3).await);
    for _ in 0..2 {
        let mut alice = join(&mesh.a.relay, 1).await;
        // In this order: bob's relay has heard of alice before it gets anything from her.
        probe(&mut bob, &mut alice).await;
        probe(&mut alice, &mut bob).await;
        let key = alice.key;
        drop(alice);
        bob.expect(Event::Gone(key, PeerGoneReason::Disconnected)).await;
        carol.expect_silence().await;
        bob.send(key, &disco("are you there?")).await;
        bob.expect(Event::Gone(key, PeerGoneReason::NotHere)).await;
    }
}

#[tokio::test]
async fn a_key_that_moves_or_is_on_both_relays_is_not_lost() {
    let mesh = Mesh::start().await;
    let mut alice = join(&mesh.a.relay, 1).await;
    let mut bob = join(&mesh.b.relay, 2).await;
    probe(&mut bob, &mut alice).await;
    probe(&mut alice, &mut bob).await;

    // Here it wins, though the other relay has had it for longer.
    let mut bob_here = join(&mesh.a.relay, 2).await;
    alice.send(bob.key, b"here").await;
    bob_here.expect(Event::Packet(alice.key, b"here".to_vec())).await;
    bob_here.send(alice.key, b"from here").await;
    alice.expect(Event::Packet(bob.key, b"from here".to_vec())).await;

    // When it has left, it is still there: nobody hears that it is gone.
    drop(bob_here);
    until("it has left", || !mesh.a.relay.is_connected(&bob.key)).await;
    alice.send(bob.key, b"there").await;
    bob.expect(Event::Packet(alice.key, b"there".to_vec())).await;
    alice.expect_silence().await;
    drop(bob);
    alice.expect(Event::Gone(node(2).public(), PeerGoneReason::Disconnected)).await;
}

#[tokio::test]
async fn a_relay_that_comes_back_is_of_the_mesh_again() {
    let Mesh { a, b, _links: [link, _back] } = Mesh::start().await;
    let (mut alice, mut bob) = (join(&a.relay, 1).await, join(&b.relay, 2).await);
    probe(&mut bob, &mut alice).await;
    let addr = b.service.local_addr();
    b.stop().await;
    assert_eq!(bob.closed().await, []);
    alice.expect(Event::Gone(bob.key, PeerGoneReason::Disconnected)).await;
    until("the peer is gone", || a.relay.stats().mesh_peers.load(Ordering::Relaxed) == 0).await;

    let b = Site::start_at(0x0b, addr, mesh_key(1)).await;
    let mut bob = join(&b.relay, 2).await;
    probe(&mut alice, &mut bob).await;
    a.cancel.cancel();
    link.stopped().await;
}

#[tokio::test]
async fn a_wrong_mesh_key_opens_nothing() {
    let (a, b) = (Site::start(0x0a).await, Site::start(0x0b).await);
    let stranger = Site::start_at(0x0c, ([127, 0, 0, 1], 0).into(), mesh_key(2)).await;
    let _links = [a.spawn_mesh(&stranger), stranger.spawn_mesh(&a)];
    let (mut alice, mut eve) = (join(&a.relay, 1).await, join(&stranger.relay, 2).await);
    // It logs in as an ordinary client would, and is cut for what it asks.
    until("it was there twice", || a.relay.stats().logins.load(Ordering::Relaxed) >= 3).await;
    eve.send(alice.key, b"hello").await;
    eve.expect_silence().await;
    alice.expect_silence().await;
    assert_eq!(stranger.dropped(DropReason::UnknownDestination), 1);
    for site in [&a, &stranger] {
        assert_eq!(site.relay.stats().mesh_peers.load(Ordering::Relaxed), 0);
    }
    drop(b);
}

#[tokio::test]
async fn a_relay_finds_out_that_it_would_mesh_with_itself() {
    let site = Site::start(0x0a).await;
    timeout(Duration::from_secs(10), site.spawn_mesh(&site).stopped()).await.expect("an end");
    assert_eq!(site.relay.stats().logins.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_relay_without_a_mesh_key_has_no_mesh() {
    let relay = crate::client::relay();
    let peer = "relay.example".parse().expect("a relay");
    assert!(relay.spawn_mesh(&peer, Arc::new(RootCertStore::empty())).is_none());
}

/// A client with the mesh key, by which it speaks as a relay does.
async fn privileged(relay: &Relay, number: u8, bytes: usize) -> Joined {
    let info = ClientInfo { version: 2, mesh_key: Some(mesh_key(1)), ..ClientInfo::default() };
    Client::log_in_as(open(relay, bytes), &node(number), &info).await.expect("login")
}

fn present(number: u8, flags: u8) -> Event {
    let addr = SocketAddr::from(([0_u16; 8], 0));
    Event::Present(PeerPresent { key: node(number).public(), addr, flags })
}

#[tokio::test]
async fn whoever_has_the_mesh_key_sees_sends_and_closes() {
    // The other relay's client: packets that were forwarded once go no further.
    let mesh = Mesh::start().await;
    let (mut alice, mut carol) = (join(&mesh.a.relay, 1).await, join(&mesh.b.relay, 3).await);
    probe(&mut alice, &mut carol).await;

    let mut monitor = privileged(&mesh.a.relay, 9, 64 << 10).await;
    monitor.send_frame(&ClientFrame::WatchConns).await;
    let relay = mesh.b.relay.public_key();
    let mut here = Vec::new();
    for _ in 0..3 {
        here.push(monitor.next().await.expect("a frame"));
    }
    assert!(here.contains(&present(1, PeerPresent::REGULAR)), "{here:?}");
    assert!(here.contains(&present(9, PeerPresent::MESH_PEER)), "{here:?}");
    let is_relay = |event: &Event| matches!(event, Event::Present(peer) if peer.key == relay);
    assert!(here.iter().any(is_relay), "{here:?}");

    let src = node(4).public();
    let to = |dst| ClientFrame::ForwardPacket { src, dst, payload: b"as another" };
    monitor.send_frame(&to(alice.key)).await;
    alice.expect(Event::Packet(src, b"as another".to_vec())).await;
    monitor.send_frame(&to(carol.key)).await;
    monitor.expect_silence().await;
    carol.expect_silence().await;
    assert_eq!(mesh.a.dropped(DropReason::UnknownForwarded), 1);
    let lost = ClientFrame::ForwardPacket { src, dst: carol.key, payload: &disco("lost") };
    monitor.send_frame(&lost).await;
    monitor.expect(Event::Gone(carol.key, PeerGoneReason::NotHere)).await;

    let mut again = join(&mesh.a.relay, 1).await;
    monitor.expect(present(1, PeerPresent::REGULAR)).await;
    monitor.send_frame(&ClientFrame::ClosePeer(alice.key)).await;
    monitor.expect(Event::Gone(alice.key, PeerGoneReason::Disconnected)).await;
    assert_eq!((alice.closed().await, again.closed().await), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn whoever_has_the_mesh_key_may_read_slowly_for_longer() {
    let (private, admission) = (DerpPrivate::from_bytes([1; 32]), Arc::new(|_: &NodePublic| true));
    let cancel = CancellationToken::new();
    let relay = Relay::with_mesh_key(private, Some(mesh_key(1)), admission, cancel);
    let mut alice = join(&relay, 1).await;
    let mut monitor = privileged(&relay, 9, 1000).await;
    monitor.send(alice.key, b"hello").await;
    alice.expect(Event::Packet(monitor.key, b"hello".to_vec())).await;
    let start = Instant::now();
    for _ in 0..10 {
        alice.send(monitor.key, &[0; 1400]).await;
    }
    alice.expect(Event::Gone(monitor.key, PeerGoneReason::Disconnected)).await;
    let waited = start.elapsed();
    assert!(waited >= MESH_WRITE_DEADLINE && waited < 2 * MESH_WRITE_DEADLINE, "{waited:?}");
}
