use std::sync::Arc;

use bytes::Bytes;
use mesh_derp::{ClientFrame, PACKET_BYTES_MAX, PacketKind};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::numbers::Numbers;

const REGION: DerpRegionId = DerpRegionId(900);

/// A served connection, and the relay's end of it.
struct Served {
    relay: DuplexStream,
    shared: Arc<Shared>,
    events: mpsc::Receiver<Event>,
    end: JoinHandle<DisconnectCause>,
}

/// Serves a connection that holds `pipe_bytes` each way, for a listener who is `events_max` behind at most.
fn serve_with(pipe_bytes: usize, events_max: usize) -> Served {
    let (io, relay) = tokio::io::duplex(pipe_bytes);
    let (sender, events) = mpsc::channel(events_max);
    let shared = Arc::new(Shared::new(false));
    let ours = Arc::clone(&shared);
    let link = Link { io, input: BytesMut::new(), rate: None };
    let end = tokio::spawn(async move { serve(link, &ours, &sender, REGION).await });
    Served { relay, shared, events, end }
}

fn peer(number: u8) -> NodePublic {
    NodePublic::from_bytes([number; 32])
}

fn encode(frames: &[ServerFrame<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        frame.encode(&mut bytes);
    }
    bytes
}

impl Served {
    async fn relay_sends(&mut self, frames: &[ServerFrame<'_>]) {
        self.relay.write_all(&encode(frames)).await.expect("the client reads");
    }

    async fn expect_packet(&mut self, expected_src: NodePublic, expected: &[u8]) {
        match self.events.recv().await {
            Some(Event::Received { region: REGION, src, packet }) => {
                assert!(src == expected_src && packet == expected);
            }
            other => panic!("{other:?}"),
        }
    }

    async fn relay_reads(&mut self, expected: ClientFrame<'_>) {
        let mut bytes = Vec::new();
        expected.encode(&mut bytes);
        let mut read = vec![0; bytes.len()];
        self.relay.read_exact(&mut read).await.expect("a frame");
        assert!(read == bytes, "{read:02x?}");
    }

    /// Waits until the connection has ended and says why.
    async fn end(self) -> String {
        self.end.await.expect("no panic").to_string()
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_relay_is_given_up() {
    let start = Instant::now();
    let served = serve_with(1024, 1);
    assert_eq!(served.end().await, "no frame from the relay in 120 seconds");
    assert_eq!(start.elapsed(), SILENCE_MAX);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_drip_are_silence_and_frames_are_none() {
    let mut served = serve_with(1024, 1);
    for _ in 0..3 {
        sleep(Duration::from_secs(100)).await;
        served.relay_sends(&[ServerFrame::KeepAlive]).await;
    }
    let start = Instant::now();
    let packet = encode(&[ServerFrame::RecvPacket { src: peer(1), payload: &[0; 1000] }]);
    for byte in packet {
        if served.end.is_finished() {
            break;
        }
        sleep(Duration::from_secs(1)).await;
        let _ = served.relay.write_all(&[byte]).await;
    }
    assert_eq!(served.end().await, "no frame from the relay in 120 seconds");
    assert!(start.elapsed() <= SILENCE_MAX + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_takes_in_nothing_is_given_up() {
    let start = Instant::now();
    let served = serve_with(1024, 1);
    served.shared.update(|outbox| outbox.push_packet(peer(1), Bytes::from(vec![0; 10_000])));
    let relay = served.relay;
    assert_eq!(served.end.await.expect("no panic").to_string(), "relay takes in nothing");
    assert_eq!(start.elapsed(), WRITE_TIMEOUT);
    drop(relay);
}

#[tokio::test]
async fn a_relay_that_hangs_up_ends_the_connection() {
    let Served { relay, shared: _, events: _events, end } = serve_with(1024, 1);
    drop(relay);
    assert_eq!(end.await.expect("no panic").to_string(), "connection to the relay ended");
}

#[tokio::test]
async fn frames_that_make_no_sense_end_the_connection() {
    for nonsense in [&b"\x05\xff\xff\xff\xff"[..], b"\x05\0\0\0\x01", b"\x7f\xff\0\0\0"] {
        let mut served = serve_with(1024, 1);
        served.relay.write_all(nonsense).await.expect("the client reads");
        assert_eq!(served.end().await, "relay does not keep to the protocol");
    }
}

#[tokio::test]
async fn frames_are_answered_told_or_passed_over() {
    let mut served = serve_with(1024, 8);
    served
        .relay
        .write_all(b"\x14\0\0\0\x04sick\x15\0\0\0\x08\0\0\0\0\0\0\0\0")
        .await
        .expect("read");
    let key = peer(3);
    served
        .relay_sends(&[
            ServerFrame::KeepAlive,
            ServerFrame::Pong([1; 8]),
            ServerFrame::Ping([2; 8]),
            ServerFrame::PeerGone { key, reason: PeerGoneReason::NotHere },
            ServerFrame::RecvPacket { src: key, payload: b"" },
        ])
        .await;
    served.relay_reads(ClientFrame::Pong([2; 8])).await;
    match served.events.recv().await {
        Some(Event::PeerGone { region: REGION, key: gone, reason: PeerGoneReason::NotHere }) => {
            assert_eq!(gone, key);
        }
        other => panic!("{other:?}"),
    }
    served.expect_packet(key, b"").await;
}

#[tokio::test]
async fn what_waits_leaves_and_what_comes_later_follows() {
    let mut served = serve_with(4096, 1);
    for payload in [&b"first"[..], b"second", b"third"] {
        let packet = Bytes::copy_from_slice(payload);
        served.shared.update(|outbox| outbox.push_packet(peer(1), packet));
        served.relay_reads(ClientFrame::SendPacket { dst: peer(1), payload }).await;
    }
    served.shared.update(|outbox| outbox.set_home(true));
    served.relay_reads(ClientFrame::NotePreferred(true)).await;
    let sent = served.shared.update(|outbox| outbox.status().sent);
    assert_eq!(sent[PacketKind::Data as usize].packets, 3);
}

#[tokio::test(start_paused = true)]
async fn a_slow_listener_holds_the_relay_back_but_not_our_packets() {
    let mut served = serve_with(1024, 1);
    let flood =
        encode(&[ServerFrame::RecvPacket { src: peer(1), payload: &[7; 1000] }]).repeat(500);
    let (mut relay_reader, mut relay_writer) = tokio::io::split(served.relay);
    let sending =
        tokio::spawn(async move { relay_writer.write_all(&flood).await.map(|()| relay_writer) });
    // Paused time goes on once nothing else can.
    sleep(Duration::from_secs(1)).await;
    assert!(!sending.is_finished(), "half a megabyte is taken in for a listener who takes nothing");

    served.shared.update(|outbox| outbox.push_packet(peer(2), Bytes::from_static(b"out")));
    let mut read = [0; 40];
    relay_reader.read_exact(&mut read).await.expect("our packet");
    assert_eq!(&read[37..], b"out");

    for _ in 0..500 {
        let event = served.events.recv().await;
        assert!(matches!(event, Some(Event::Received { packet, .. }) if packet == [7; 1000][..]));
    }
    sending.await.expect("no panic").expect("the client reads");
}

#[tokio::test]
async fn packets_arrive_as_they_were_sent_however_the_stream_is_cut() {
    for seed in 1..=12 {
        let mut numbers = Numbers::new(seed);
        let mut served = serve_with(100_000, 1);
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for number in 0..60 {
            let end = [100, 1500, PACKET_BYTES_MAX + 1][numbers.below(3)];
            let bytes = numbers.below(end);
            let payload = vec![number; bytes];
            let src = peer(number);
            ServerFrame::RecvPacket { src, payload: &payload }.encode(&mut stream);
            expected.push((src, payload));
            if numbers.below(4) == 0 {
                let unknown = numbers.below(70_000);
                stream.push(0x7f);
                stream.extend(u32::try_from(unknown).expect("small").to_be_bytes());
                stream.resize(stream.len() + unknown, 5);
            }
        }
        let mut relay = served.relay;
        let sending = tokio::spawn(async move {
            let mut rest = &stream[..];
            while !rest.is_empty() {
                let cut = (1 + numbers.below(40_000)).min(rest.len());
                relay.write_all(&rest[..cut]).await.expect("the client reads");
                yield_now().await;
                rest = &rest[cut..];
            }
            relay
        });
        for (expected_src, expected) in expected {
            match served.events.recv().await {
                Some(Event::Received { src, packet, .. }) => {
                    assert!(src == expected_src && packet == expected, "seed {seed}");
                }
                other => panic!("{other:?}"),
            }
        }
        drop(sending.await);
    }
}
