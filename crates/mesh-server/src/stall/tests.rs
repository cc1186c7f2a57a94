use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{Empty, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::handshake;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_keys::MachinePrivate;
use mesh_noise::{Initiator, Responder};
use mesh_noise_io::NoiseStream;
use mesh_noise_io::http2::{ServeError, Timeouts, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;

/// A client that reads so much, and then nothing.
struct Lazy(TcpStream, usize);

impl AsyncRead for Lazy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.1 == 0 {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
        self.1 = self.1.saturating_sub(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Lazy {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Most bytes that a client may leave unread on our side.
const UNREAD_BYTES_MAX: usize = 256 << 10;

const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test(start_paused = true)]
async fn a_write_that_nobody_takes_breaks_the_connection() {
    let (io, _unread) = duplex(1000);
    let mut stream = Impatient::new(io, PATIENCE);
    stream.write_all(&[7; 1000]).await.unwrap();
    let started = Instant::now();
    let error = stream.write_all(b"more").await.unwrap_err();
    assert_eq!((error.kind(), started.elapsed()), (io::ErrorKind::TimedOut, PATIENCE));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_slow_is_waited_for() {
    let (io, mut reader) = duplex(1000);
    let mut stream = Impatient::new(io, PATIENCE);
    let writing = tokio::spawn(async move { stream.write_all(&vec![7; 20_000]).await });
    for _ in 0..20 {
        tokio::time::sleep(PATIENCE * 9 / 10).await;
        reader.read_exact(&mut [0; 1000]).await.unwrap();
    }
    writing.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn silence_breaks_nothing() {
    let (io, mut reader) = duplex(1000);
    let mut stream = Impatient::new(io, PATIENCE);
    for _ in 0..3 {
        tokio::time::sleep(10 * PATIENCE).await;
        stream.write_all(b"alive").await.unwrap();
        reader.read_exact(&mut [0; 5]).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_socket_holds_unsent_is_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    bound_socket(&listener, PATIENCE).unwrap();
    let _unread = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let socket = SockRef::from(&accepted);
    assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES_MAX);
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(PATIENCE));
}

/// Asks for a body without end over a real socket, and reads nothing of it. Returns how much of the body was taken, and how
/// its channel ended.
async fn read_nothing_of(piece_bytes: usize) -> (usize, Result<(), ServeError>) {
    let patience = Duration::from_millis(300);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    bound_socket(&listener, PATIENCE).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    // What the client's own system takes in is not held by us.
    socket.set_recv_buffer_size(4096).unwrap();
    let client = socket.connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();

    let (client_key, server_key) =
        (MachinePrivate::from_bytes([1; 32]), MachinePrivate::from_bytes([2; 32]));
    let initiator = Initiator::new(&client_key, &server_key.public(), 130).unwrap();
    let answer = Responder::new(&server_key).respond(initiator.initiation()).unwrap();
    let client = NoiseStream::new(Lazy(client, 4096), initiator.finish(&answer.response).unwrap());
    let stream = NoiseStream::new(Impatient::new(accepted, patience), answer.transport);

    let taken = Arc::<AtomicUsize>::default();
    let counter = taken.clone();
    let service = service_fn(move |_| {
        let counter = counter.clone();
        let endless = std::iter::repeat_with(move || {
            counter.fetch_add(piece_bytes, Ordering::Relaxed);
            Ok::<_, Infallible>(Frame::data(Bytes::from(vec![7; piece_bytes])))
        });
        let body = StreamBody::new(futures_util::stream::iter(endless));
        std::future::ready(Ok::<_, Infallible>(Response::new(body)))
    });
    let timeouts = Timeouts { first_request: PATIENCE, stall: patience };
    let server = tokio::spawn(serve(stream, service, timeouts, CancellationToken::new()));
    let (mut sender, connection) =
        handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://test/").body(Empty::<Bytes>::new()).unwrap();
    let started = Instant::now();
    let _response = sender.send_request(request).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), server).await.unwrap().unwrap();
    assert!(started.elapsed() >= patience / 2, "{:?}", started.elapsed());
    (taken.load(Ordering::Relaxed), ended)
}

#[tokio::test]
async fn a_reader_that_stalls_holds_little_and_is_dropped() {
    for piece_bytes in [600, 12_000] {
        let (taken, ended) = read_nothing_of(piece_bytes).await;
        assert!(taken <= UNREAD_BYTES_MAX, "{taken} bytes in pieces of {piece_bytes}");
        assert!(ended.is_err(), "{ended:?}");
    }
}
