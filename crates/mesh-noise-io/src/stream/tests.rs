use std::sync::{Arc, Mutex};

use mesh_keys::MachinePrivate;
use mesh_noise::{Initiator, RESPONSE_BYTES, Responder};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

/// The two ends of a fresh channel, and the server's response.
fn channel() -> (Transport, Transport, [u8; RESPONSE_BYTES]) {
    let client = MachinePrivate::from_bytes([1; 32]);
    let server = MachinePrivate::from_bytes([2; 32]);
    let initiator = Initiator::new(&client, &server.public(), 130).expect("initiation");
    let accepted = Responder::new(&server).respond(initiator.initiation()).expect("accepted");
    let transport = initiator.finish(&accepted.response).expect("finished");
    (transport, accepted.transport, accepted.response)
}

/// Two connected streams over a pipe that holds `pipe_bytes`.
fn connected(pipe_bytes: usize) -> (NoiseStream<DuplexStream>, NoiseStream<DuplexStream>) {
    let (client, server, _) = channel();
    let (client_io, server_io) = duplex(pipe_bytes);
    (NoiseStream::new(client_io, client), NoiseStream::new(server_io, server))
}

fn numbered(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from(index % 251).expect("below 251")).collect()
}

/// An inner stream that takes everything and remembers each write apart.
#[derive(Debug, Clone, Default)]
struct Writes(Arc<Mutex<Vec<Vec<u8>>>>);

impl Writes {
    fn lengths(&self) -> Vec<usize> {
        self.0.lock().expect("lock").iter().map(Vec::len).collect()
    }
}

impl AsyncWrite for Writes {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().expect("lock").push(buf.to_vec());
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn both_directions_carry_bytes() {
    let (mut client, mut server) = connected(1024);
    client.write_all(b"ping").await.expect("write");
    client.flush().await.expect("flush");
    let mut buf = [0; 4];
    server.read_exact(&mut buf).await.expect("read");
    assert_eq!(&buf, b"ping");
    server.write_all(b"pong").await.expect("write");
    server.flush().await.expect("flush");
    client.read_exact(&mut buf).await.expect("read");
    assert_eq!(&buf, b"pong");
}

#[tokio::test]
async fn writes_leave_together_on_flush() {
    let writes = Writes::default();
    let (_, server, response) = channel();
    let mut stream = NoiseStream::answering(writes.clone(), &response, server);
    stream.write_all(b"early payload").await.expect("write");
    stream.write_all(&numbered(10_000)).await.expect("write");
    assert!(writes.lengths().is_empty(), "nothing leaves before the flush");
    stream.flush().await.expect("flush");
    assert_eq!(writes.lengths(), [RESPONSE_BYTES + 10_013 + 3 * 19]);
    assert_eq!(writes.0.lock().expect("lock")[0][..RESPONSE_BYTES], response);
}

#[tokio::test]
async fn slices_of_one_write_share_records() {
    let writes = Writes::default();
    let mut stream = NoiseStream::new(writes.clone(), channel().0);
    let slices = [IoSlice::new(b"frame header"), IoSlice::new(b""), IoSlice::new(b"payload")];
    let taken = stream.write_vectored(&slices).await.expect("write");
    stream.flush().await.expect("flush");
    assert_eq!((taken, writes.lengths()), (19, vec![19 + 19]));
}

#[tokio::test]
async fn unread_writes_wait_instead_of_piling_up() {
    let (mut client, mut server) = connected(1024);
    let everything = numbered(1 << 20);
    let sent = everything.clone();
    let writer = tokio::spawn(async move {
        client.write_all(&sent).await.expect("write");
        client.shutdown().await.expect("shutdown");
        client
    });
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(!writer.is_finished(), "1 MiB does not fit the buffers");
    let mut received = Vec::new();
    server.read_to_end(&mut received).await.expect("read");
    assert_eq!(received, everything);
    let client = writer.await.expect("writer");
    assert_eq!(client.outgoing.capacity(), 0);
}

#[tokio::test]
async fn idle_stream_holds_no_buffer() {
    let (mut client, mut server) = connected(1024);
    client.write_all(b"ping").await.expect("write");
    client.flush().await.expect("flush");
    server.read_exact(&mut [0; 4]).await.expect("read");
    let mut buf = [0; 1];
    let idle = tokio::time::timeout(std::time::Duration::from_millis(1), server.read(&mut buf));
    assert!(idle.await.is_err(), "nothing to read");
    let held = [&server.incoming, &server.plaintext, &server.outgoing, &client.outgoing];
    assert_eq!(held.map(BytesMut::capacity), [0; 4]);
}

#[tokio::test]
async fn one_direction_closes_without_the_other() {
    let (mut client, mut server) = connected(1024);
    client.write_all(b"last words").await.expect("write");
    client.shutdown().await.expect("shutdown");
    let mut received = Vec::new();
    server.read_to_end(&mut received).await.expect("read");
    assert_eq!(received, b"last words");
    assert_eq!(server.read(&mut [0; 8]).await.expect("still the end"), 0);
    server.write_all(b"answer").await.expect("write");
    server.shutdown().await.expect("shutdown");
    received.clear();
    client.read_to_end(&mut received).await.expect("read");
    assert_eq!(received, b"answer");
}

/// What a reader makes of `wire`, the records of `b"one"` and `b"two"` after `change`.
async fn read_changed(change: impl FnOnce(&mut Vec<u8>)) -> (Vec<u8>, io::Result<()>) {
    let (mut client, server, _) = channel();
    let mut wire = BytesMut::new();
    client.sealer.seal_into([&b"one"[..]], &mut wire).expect("seal");
    client.sealer.seal_into([&b"two"[..]], &mut wire).expect("seal");
    let mut wire = wire.to_vec();
    change(&mut wire);
    let mut stream = NoiseStream::new(&wire[..], server);
    let mut received = Vec::new();
    let result = stream.read_to_end(&mut received).await.map(drop);
    (received, result)
}

#[tokio::test]
async fn end_at_a_record_boundary_is_the_end() {
    for (kept, expected) in [(0, &b""[..]), (22, b"one"), (44, b"onetwo")] {
        let (received, result) = read_changed(|wire| wire.truncate(kept)).await;
        assert_eq!((&received[..], result.is_ok()), (expected, true));
    }
}

#[tokio::test]
async fn end_inside_a_record_is_an_error() {
    for kept in (1..22).chain(23..44) {
        let (received, result) = read_changed(|wire| wire.truncate(kept)).await;
        assert_eq!(received, if kept < 22 { &b""[..] } else { b"one" });
        let error = result.expect_err("a truncated record");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "after {kept} bytes");
    }
}

#[tokio::test]
async fn broken_record_is_an_error_after_what_came_before() {
    // All but byte 23: that makes the record longer, hence incomplete.
    for position in (22..23).chain(24..44) {
        let (received, result) = read_changed(|wire| wire[position] ^= 1).await;
        assert_eq!(received, b"one");
        let kind = result.expect_err("a broken record").kind();
        assert_eq!(kind, io::ErrorKind::InvalidData, "byte {position}");
    }
}

/// Sends `writes` through a pipe of `pipe_bytes`, flushing after each, and reads `read_bytes` at a time.
async fn carry(writes: Vec<Vec<u8>>, pipe_bytes: usize, read_bytes: usize) -> Vec<u8> {
    let (mut client, mut server) = connected(pipe_bytes);
    let sending = tokio::spawn(async move {
        for write in writes {
            client.write_all(&write).await.expect("write");
            client.flush().await.expect("flush");
        }
        client.shutdown().await.expect("shutdown");
    });
    let (mut received, mut buf) = (Vec::new(), vec![0; read_bytes]);
    loop {
        let length = server.read(&mut buf).await.expect("read");
        received.extend_from_slice(&buf[..length]);
        if length == 0 {
            break;
        }
    }
    sending.await.expect("sent");
    received
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_chunking_changes_what_arrives(
        lengths in prop::collection::vec(prop_oneof![0_usize..30, 3_000_usize..100_000], 0..5),
        pipe_bytes in prop_oneof![1_usize..40, 1_000_usize..100_000],
        read_bytes in prop_oneof![1_usize..40, 1_000_usize..20_000],
    ) {
        let writes: Vec<_> = lengths.into_iter().map(numbered).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        let received = runtime.block_on(carry(writes.clone(), pipe_bytes, read_bytes));
        prop_assert!(received == writes.concat());
    }
}
