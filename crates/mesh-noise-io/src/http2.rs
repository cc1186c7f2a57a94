//! HTTP/2 inside a channel, the server's side: one task for a connection and all its requests.
//!
//! A server has thousands of channels that wait, and now and then something to say in all of them at once.
//! hyper's own way is a task for the connection and one for each request, which wake each other; and it
//! flushes after each frame. Here the task of the connection polls its requests as well, polls only what was
//! woken, and flushes once it has nothing more to do: what a body gives in several pieces leaves in one record
//! and one write.

mod cork;
mod unread;
mod wake;

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::NoiseStream;
use cork::Corked;
use unread::{Unread, Watch, Watched};
use wake::Wakes;

/// Streams that a client may have open at once in its one connection.
const STREAMS_MAX: u32 = 100;

/// Largest header list of a request, in bytes.
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;

/// Streams that a client may reset before they were served, before it is taken for an attack.
const RESET_STREAMS_MAX: usize = 100;

/// A body is asked for more while fewer bytes of it wait for the channel. A client that does not read costs
/// this much, a piece of the body, and what [`NoiseStream`] and the socket hold.
const SEND_BUFFER_BYTES_MAX: usize = 64 << 10;

/// After so many turns without a pause other tasks have theirs.
const TURNS_MAX: usize = 16;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a channel did not end as it should.
#[derive(Debug, Error)]
pub enum ServeError {
    /// What was to be said could not be sent.
    #[error("cannot write to the channel")]
    Write(#[source] io::Error),
    /// The client asked for something and does not read it.
    #[error("client has stopped reading")]
    Stalled,
    /// The channel broke, or the client does not keep to the protocol.
    #[error("http/2 failed")]
    Http2(#[source] hyper::Error),
}

/// How long a client is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For its first request; the channel then ends.
    pub first_request: Duration,
    /// To read any of what it is sent; the channel then ends with [`ServeError::Stalled`].
    pub stall: Duration,
}

/// Serves HTTP/2 in a channel until either side ends it. Once `stop` is cancelled, the client is told to ask
/// no more, and the connection ends with the last answer.
///
/// Answers are computed in the task that calls this: what takes long must be left to others.
pub async fn serve<IO, S, B>(
    stream: NoiseStream<IO>,
    service: S,
    timeouts: Timeouts,
    stop: CancellationToken,
) -> Result<(), ServeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<Cause>>,
    S::Future: Send + 'static,
    B: Body<Data: Send, Error: Into<Cause>> + Send + 'static,
{
    let stream = Corked::new(stream);
    let spawned = Spawned::default();
    let unread = Arc::<Unread>::default();
    let mut watch = Watch::new(unread.clone(), timeouts.stall);
    let service = service_fn(move |request| {
        let (answer, unread) = (service.call(request), unread.clone());
        async move { Ok::<_, S::Error>(answer.await?.map(|body| Watched::new(body, unread))) }
    });
    let connection = bounded(spawned.clone());
    let connection = connection.serve_connection(TokioIo::new(stream.clone()), service);
    let mut connection = pin!(connection);
    let mut jobs = Jobs::new(spawned, timeouts.first_request, stop);
    let wakes = Wakes::new();
    std::future::poll_fn(|task| {
        wakes.unpark();
        for _ in 0..TURNS_MAX {
            if wakes.jobs.take() {
                let mut context = Context::from_waker(wakes.jobs.waker());
                while let Poll::Ready(event) = jobs.poll_event(&mut context) {
                    match event {
                        Event::Answered => {}
                        Event::Stop => {
                            connection.as_mut().graceful_shutdown();
                            wakes.connection.set();
                        }
                        Event::PatienceIsOver if jobs.has_begun => {}
                        Event::PatienceIsOver => return Poll::Ready(Ok(())),
                    }
                }
            }
            let mut context = Context::from_waker(wakes.connection.waker());
            if wakes.connection.take() {
                if let Poll::Ready(ended) = connection.as_mut().poll(&mut context) {
                    return Poll::Ready(ended.map_err(ServeError::Http2));
                }
                if jobs.take_spawned() {
                    wakes.jobs.set();
                }
            }
            if wakes.are_quiet() {
                if let Poll::Ready(Err(error)) = stream.poll_uncork(&mut context) {
                    return Poll::Ready(Err(ServeError::Write(error)));
                }
                if watch.poll_stalled(&mut context).is_ready() {
                    return Poll::Ready(Err(ServeError::Stalled));
                }
                if wakes.park(task.waker()) {
                    return Poll::Pending;
                }
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// HTTP/2 with limits on all that a client can make grow.
fn bounded(spawned: Spawned) -> http2::Builder<Spawned> {
    let mut builder = http2::Builder::new(spawned);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX);
    builder
}

/// What comes of a job.
enum Event {
    /// A request is answered, or was given up.
    Answered,
    /// The server stops.
    Stop,
    /// By now there should have been a request.
    PatienceIsOver,
}

type Job = Pin<Box<dyn Future<Output = Event> + Send>>;

/// Requests that are being answered, and what else the task waits for.
struct Jobs {
    running: FuturesUnordered<Job>,
    spawned: Spawned,
    has_begun: bool,
}

impl Jobs {
    fn new(spawned: Spawned, patience: Duration, stop: CancellationToken) -> Self {
        let mut jobs = Self { running: FuturesUnordered::new(), spawned, has_begun: false };
        jobs.push(async move {
            stop.cancelled().await;
            Event::Stop
        });
        jobs.push(async move {
            tokio::time::sleep(patience).await;
            Event::PatienceIsOver
        });
        jobs
    }

    fn push(&mut self, job: impl Future<Output = Event> + Send + 'static) {
        self.running.push(Box::pin(job));
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        match self.running.poll_next_unpin(context) {
            Poll::Ready(Some(event)) => Poll::Ready(event),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// Takes over what the connection has begun; whether there was anything.
    fn take_spawned(&mut self) -> bool {
        let mut spawned = self.spawned.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_any = !spawned.is_empty();
        self.running.extend(spawned.drain(..));
        self.has_begun |= has_any;
        has_any
    }
}

/// Requests that the connection has begun to answer, until the task takes them over.
#[derive(Clone, Default)]
struct Spawned(Arc<Mutex<Vec<Job>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawned {
    fn execute(&self, answer: F) {
        let job = Box::pin(async move {
            answer.await;
            Event::Answered
        });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(job);
    }
}

#[cfg(test)]
mod tests;
