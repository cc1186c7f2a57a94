use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::StatusCode;
use hyper::body::Frame;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::TokioExecutor;
use mesh_keys::MachinePrivate;
use mesh_noise::{Initiator, Responder};
use tokio::io::{AsyncReadExt as _, DuplexStream, ReadBuf, duplex};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

const TIMEOUTS: Timeouts = Timeouts { first_request: PATIENCE, stall: Duration::from_mins(1) };

type TestBody = UnsyncBoxBody<Bytes, Infallible>;

/// The server's end of a pipe, which counts what it writes.
struct Counted {
    io: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A channel that is served, and its client's end.
struct Served {
    client: NoiseStream<DuplexStream>,
    server: JoinHandle<Result<(), ServeError>>,
    stop: CancellationToken,
    writes: Arc<AtomicUsize>,
}

/// Serves a channel whose answers have the bodies that `answer` makes.
fn served(answer: impl Fn() -> TestBody + Send + 'static) -> Served {
    let (client_key, server_key) =
        (MachinePrivate::from_bytes([1; 32]), MachinePrivate::from_bytes([2; 32]));
    let initiator = Initiator::new(&client_key, &server_key.public(), 130).unwrap();
    let accepted = Responder::new(&server_key).respond(initiator.initiation()).unwrap();
    let transport = initiator.finish(&accepted.response).unwrap();
    let (client_io, io) = duplex(1 << 20);
    let writes = Arc::<AtomicUsize>::default();
    let stream = NoiseStream::new(Counted { io, writes: writes.clone() }, accepted.transport);
    let stop = CancellationToken::new();
    let service = service_fn(move |_| {
        let response = Response::new(answer());
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let server = tokio::spawn(serve(stream, service, TIMEOUTS, stop.clone()));
    Served { client: NoiseStream::new(client_io, transport), server, stop, writes }
}

async fn connect(client: NoiseStream<DuplexStream>) -> SendRequest<Empty<Bytes>> {
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &mut SendRequest<Empty<Bytes>>) -> Response<Incoming> {
    let request = Request::get("https://test/").body(Empty::new()).unwrap();
    sender.send_request(request).await.unwrap()
}

fn whole(bytes: Bytes) -> TestBody {
    Full::new(bytes).boxed_unsync()
}

#[tokio::test]
async fn requests_are_answered_one_after_the_other_and_together() {
    let served = served(|| whole(Bytes::from(vec![7; 300_000])));
    let mut sender = connect(served.client).await;
    let mut others = [sender.clone(), sender.clone()];
    let [first, second] = &mut others;
    for response in <[_; 3]>::from(tokio::join!(ask(&mut sender), ask(first), ask(second))) {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), vec![7; 300_000]);
    }
    assert_eq!(ask(&mut sender).await.status(), StatusCode::OK);
}

/// The writes of the server's end that a body of these pieces takes, given at once while nothing else is said.
async fn writes_of(pieces: Vec<usize>) -> usize {
    let (say, heard) = tokio::sync::watch::channel(());
    let bytes: usize = pieces.iter().sum();
    let served = served(move || {
        let (pieces, mut heard) = (pieces.clone(), heard.clone());
        let wait = stream::once(async move {
            heard.changed().await.unwrap();
            stream::iter(pieces.into_iter().map(|bytes| Ok(Frame::data(vec![7; bytes].into()))))
        });
        let silence = stream::pending();
        let pieces = futures_util::StreamExt::flatten(wait);
        StreamBody::new(futures_util::StreamExt::chain(pieces, silence)).boxed_unsync()
    });
    let mut sender = connect(served.client).await;
    let mut body = ask(&mut sender).await.into_body();
    // The client acknowledges our settings, and has nothing more to say.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = served.writes.load(Ordering::Relaxed);
    say.send_replace(());
    let mut received = 0;
    while received < bytes {
        received += body.frame().await.unwrap().unwrap().into_data().unwrap().len();
    }
    served.writes.load(Ordering::Relaxed) - before
}

#[tokio::test]
async fn pieces_of_a_message_leave_in_one_write() {
    for pieces in [vec![600], vec![4, 600], vec![300, 300, 300, 300], vec![16_000, 16_000, 16_000]]
    {
        assert_eq!(writes_of(pieces.clone()).await, 1, "{pieces:?}");
    }
}

#[tokio::test]
async fn much_leaves_in_writes_of_many_records() {
    let writes = writes_of(vec![12_000; 50]).await;
    assert!((600 / 80..=600 / 30).contains(&writes), "{writes} writes of 600 KB");
}

#[tokio::test(start_paused = true)]
async fn a_channel_without_a_request_ends() {
    let mut served = served(|| whole(Bytes::new()));
    let started = Instant::now();
    served.client.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(started.elapsed(), PATIENCE);
    served.server.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_was_used_may_be_silent() {
    let served = served(|| whole(Bytes::new()));
    let mut sender = connect(served.client).await;
    ask(&mut sender).await;
    tokio::time::sleep(10 * PATIENCE).await;
    assert_eq!(ask(&mut sender).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_stopping_server_finishes_its_answers() {
    let end = CancellationToken::new();
    let until = end.clone();
    let served = served(move || {
        let until = until.clone();
        let last = stream::once(async move {
            until.cancelled().await;
            Ok(Frame::data(Bytes::from_static(b"farewell")))
        });
        StreamBody::new(last).boxed_unsync()
    });
    let mut sender = connect(served.client).await;
    let response = ask(&mut sender).await;
    served.stop.cancel();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!served.server.is_finished());
    end.cancel();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "farewell");
    served.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_unread_body_is_not_asked_for_more() {
    let given = Arc::<AtomicUsize>::default();
    let counter = given.clone();
    let served = served(move || {
        let counter = counter.clone();
        let endless = std::iter::repeat_with(move || {
            counter.fetch_add(8 << 10, Ordering::Relaxed);
            Ok(Frame::data(Bytes::from_static(&[7; 8 << 10])))
        });
        StreamBody::new(stream::iter(endless)).boxed_unsync()
    });
    let mut sender = connect(served.client).await;
    let mut response = ask(&mut sender).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    // The client's window of 2 MiB and the server's buffers; the pipe is smaller than the window.
    let unread = given.load(Ordering::Relaxed);
    assert!(unread <= (2 << 20) + (256 << 10), "{unread} bytes");
    response.body_mut().frame().await.unwrap().unwrap();
}

/// A body that gives all at once, and then nothing.
fn given(bytes: usize) -> TestBody {
    let pieces = stream::iter((0..bytes / 8192).map(|_| Ok(Frame::data(vec![7; 8192].into()))));
    let pieces = futures_util::StreamExt::chain(pieces, stream::pending());
    StreamBody::new(pieces).boxed_unsync()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_grants_no_room_is_dropped() {
    let served = served(|| given(64 << 20));
    let mut sender = connect(served.client).await;
    let mut response = ask(&mut sender).await;
    // Slowly, but it reads.
    let started = Instant::now();
    for _ in 0..10 {
        for _ in 0..200 {
            response.body_mut().frame().await.unwrap().unwrap();
        }
        tokio::time::sleep(TIMEOUTS.stall * 9 / 10).await;
    }
    let ended = served.server.await.unwrap();
    assert!(matches!(ended, Err(ServeError::Stalled)), "{ended:?}");
    assert!(started.elapsed() >= 9 * TIMEOUTS.stall);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_read_all_may_wait() {
    let served = served(|| given(1 << 20));
    let mut sender = connect(served.client).await;
    let mut response = ask(&mut sender).await;
    let mut received = 0;
    while received < 1 << 20 {
        received += response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap().len();
    }
    tokio::time::sleep(10 * TIMEOUTS.stall).await;
    assert!(!served.server.is_finished());
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_requests() {
    let alive = Arc::new(());
    let held = alive.clone();
    let served = served(move || {
        let held = held.clone();
        let silence = stream::poll_fn(move |_| {
            let _ = &held;
            Poll::<Option<Result<Frame<Bytes>, Infallible>>>::Pending
        });
        StreamBody::new(silence).boxed_unsync()
    });
    let mut sender = connect(served.client).await;
    let response = ask(&mut sender).await;
    assert_eq!(Arc::strong_count(&alive), 3);
    drop((response, sender));
    let _ = served.server.await.unwrap();
    assert_eq!(Arc::strong_count(&alive), 1);
}
