//! The relay: its door, its WebSocket, and what relays of one mesh tell each other.

use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use mesh_derp::websocket::{Event, WebSocketError, WebSocketReader};
use mesh_derp::{Client, FrameError, FrameReader, MeshLink, PeerPresent, Session, Table};
use mesh_keys::{DerpPrivate, NodePublic};
use mesh_relay::{Refusal, Relay};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, split};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

/// Bytes on their way between the door and who knocks.
const PIPE_BYTES: usize = 64 << 10;

/// Most bytes that are taken out of an outbox at once.
const DRAIN_BYTES: usize = 64 << 10;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_current_thread().enable_all().build().expect("a runtime of one thread")
});

/// Any bytes to the relay's own door, and then the end: requests, an upgrade, a login, frames.
pub(crate) fn door(input: &[u8]) {
    let relay = Relay::new(
        DerpPrivate::from_bytes([7; 32]),
        Arc::new(|_: &NodePublic| true),
        CancellationToken::new(),
    );
    let mut said = Vec::new();
    RUNTIME.block_on(async {
        let (ours, theirs) = duplex(PIPE_BYTES);
        let (mut from, mut to) = split(ours);
        let write = async {
            // It may hang up before the end.
            let _ = to.write_all(input).await;
            let _ = to.shutdown().await;
        };
        let read = async {
            let _ = from.read_to_end(&mut said).await;
        };
        tokio::join!(relay.serve_connection(theirs, None), write, read);
    });
    let greeting = [1, 0, 0, 0, 40];
    assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 ") || said.starts_with(&greeting));
    let stats = relay.stats();
    assert_eq!(stats.clients.load(Ordering::Relaxed), 0, "all have left");
    let refused = Refusal::ALL.map(|reason| stats.refused(reason).load(Ordering::Relaxed));
    assert!(refused.iter().sum::<u64>() <= 1, "one connection ends once: {refused:?}");
}

/// What a WebSocket carries: its stream, its pings, and how it ended.
type Carried = (Vec<u8>, Vec<Vec<u8>>, Option<Result<u16, WebSocketError>>);

/// Any bytes as what a client sends in a WebSocket.
///
/// The first two bytes say how many bytes arrive at a time, and for how many there is room: that must not change what
/// is read.
pub(crate) fn websocket(input: &[u8]) {
    let Some((&[piece, room], stream)) = input.split_first_chunk() else { return };
    let whole = carried(stream, stream.len().max(1), stream.len().max(1));
    let in_pieces = carried(stream, usize::from(piece) + 1, usize::from(room) + 1);
    assert_eq!(in_pieces, whole);
    assert!(whole.0.len() <= stream.len());
}

fn carried(stream: &[u8], piece_bytes: usize, room_bytes: usize) -> Carried {
    let (mut reader, mut room) = (WebSocketReader::new(), vec![0; room_bytes]);
    let (mut bytes, mut pings) = (Vec::new(), Vec::new());
    for mut piece in stream.chunks(piece_bytes) {
        loop {
            match reader.next(&mut piece, &mut room) {
                Ok(Some(Event::Data(data))) => bytes.extend_from_slice(data),
                Ok(Some(Event::Ping(data))) => pings.push(data.to_vec()),
                Ok(Some(Event::Close(code))) => return (bytes, pings, Some(Ok(code))),
                Ok(None) => break,
                Err(error) => return (bytes, pings, Some(Err(error))),
            }
        }
        assert!(piece.is_empty(), "all of a piece is taken");
    }
    (bytes, pings, None)
}

/// Pieces of what a client, a relay with the mesh key and a relay that we have connected to send, each behind who
/// sends it and its length, one byte each. Whoever breaks the framing leaves.
///
/// What is written to each is what it may read.
pub(crate) fn mesh(input: &[u8]) {
    let (table, now) = (Arc::<Table>::default(), Instant::now());
    let session = |number, flags| {
        Session::join(Arc::clone(&table), peer(number, flags), now, || true).expect("is admitted")
    };
    let mut client = session(1, PeerPresent::REGULAR);
    let mut relay = session(2, PeerPresent::MESH_PEER);
    let relay_present = peer(3, PeerPresent::MESH_PEER);
    let mut link = MeshLink::new(Arc::clone(&table), peer(4, 0).key, relay_present);
    let mut rest = input;
    while let Some((&[who, length], behind)) = rest.split_first_chunk() {
        let (chunk, behind) = behind.split_at(behind.len().min(length.into()));
        rest = behind;
        let is_fine = match who % 3 {
            0 => client.take(chunk, now).is_ok(),
            1 => relay.take(chunk, now).is_ok(),
            _ => link.take(chunk).is_ok(),
        };
        if !is_fine {
            break;
        }
        check_written(client.client(), |reader, written| {
            reader.next_from_server(written).map(|frame| {
                assert!(!matches!(frame, Some(mesh_derp::ServerFrame::PeerPresent(_))));
                frame.is_some()
            })
        });
        check_written(relay.client(), |reader, written| {
            reader.next_from_server(written).map(|frame| frame.is_some())
        });
        check_written(link.relay(), |reader, written| {
            reader.next_from_client(written).map(|frame| frame.is_some())
        });
    }
    link.leave();
    relay.leave();
    client.leave();
    assert!(table.keys().is_empty());
}

fn peer(number: u8, flags: u8) -> PeerPresent {
    let addr = ([192, 0, 2, number], 443).into();
    PeerPresent { key: NodePublic::from_bytes([number; 32]), addr, flags }
}

/// Checks that all that waits for a client is whole frames.
fn check_written(
    client: &Client,
    next: impl Fn(&mut FrameReader, &mut &[u8]) -> Result<bool, FrameError>,
) {
    let mut written = Vec::new();
    client.drain(&mut written, DRAIN_BYTES);
    let (mut reader, mut rest) = (FrameReader::new(), &written[..]);
    while next(&mut reader, &mut rest).expect("a frame that may be read") {}
    assert!(rest.is_empty(), "whole frames");
}
