//! One channel to the control server, and what is asked over it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use mesh_keys::{MachinePrivate, MachinePublic};
use mesh_wire::{CapabilityVersion, MapRequest, RegisterRequest, RegisterResponse};
use serde::Serialize;
use thiserror::Error;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::early::WithoutEarlyPayload;
use crate::map_stream::MapStream;
use crate::{DialError, Dialer};

/// Most bytes of an answer that is not a map stream; longer ones are an error.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Most characters of a refusal's body that an error repeats.
const MESSAGE_CHARS_MAX: usize = 200;

/// Why a request has no answer that can be used.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The connection failed, or the server reset the request.
    #[error("request failed")]
    Http(#[from] hyper::Error),
    /// The path is none that a request can have.
    #[error("path cannot be requested")]
    Path(#[from] http::Error),
    /// Another status than 200.
    #[error("control server answered {status}: {message:?}")]
    Status {
        /// The status.
        status: StatusCode,
        /// What the server said, cut short.
        message: String,
        /// When to try again, if the server says so in seconds.
        retry_after: Option<Duration>,
    },
    /// The answer is longer than it may be.
    #[error("answer longer than {max} bytes")]
    TooLong {
        /// The limit in bytes.
        max: usize,
    },
    /// The answer is no JSON of the expected shape.
    #[error("answer is malformed")]
    Json(#[from] serde_json::Error),
}

impl RequestError {
    /// When to try again, if the server says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Http(_) | Self::Path(_) | Self::TooLong { .. } | Self::Json(_) => None,
        }
    }
}

/// An open channel to a control server. Clones share it; it closes at once when the last of them and of its
/// [`MapStream`]s is dropped.
#[derive(Debug, Clone)]
pub struct ControlClient {
    sender: http2::SendRequest<Full<Bytes>>,
    authority: Arc<str>,
    server_key: MachinePublic,
    channel: Arc<DropGuard>,
    deaf: Arc<AtomicBool>,
}

impl ControlClient {
    /// Asks the server for its key and opens a channel as `machine_key`, at capability version `version`.
    pub async fn connect(
        dialer: &Dialer,
        machine_key: &MachinePrivate,
        version: CapabilityVersion,
    ) -> Result<Self, DialError> {
        let server_key = dialer.server_key(version).await?;
        Self::connect_to(dialer, machine_key, version, server_key).await
    }

    /// The same with the server's key already known: one connection instead of two.
    pub async fn connect_to(
        dialer: &Dialer,
        machine_key: &MachinePrivate,
        version: CapabilityVersion,
        server_key: MachinePublic,
    ) -> Result<Self, DialError> {
        let stream = dialer.open(machine_key, version, &server_key).await?;
        let deaf = Arc::<AtomicBool>::default();
        let io = TokioIo::new(WithoutEarlyPayload::new(stream, Arc::clone(&deaf)));
        let tasks = Tasks(CancellationToken::new());
        let channel = Arc::new(tasks.0.clone().drop_guard());
        let (sender, connection) =
            http2::handshake(tasks.clone(), io).await.map_err(RequestError::Http)?;
        tasks.spawn_until_dropped(connection);
        let authority = dialer.url().authority().into();
        Ok(Self { sender, authority, server_key, channel, deaf })
    }

    /// The key that the server proved to hold.
    pub fn server_key(&self) -> MachinePublic {
        self.server_key
    }

    /// Whether the connection has ended, so that every request would fail.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Reads nothing from the connection any more, for good, but leaves it open: what a server has to bear from a
    /// machine that was put to sleep. Answers under way never come.
    pub fn stop_reading(&self) {
        self.deaf.store(true, Ordering::Relaxed);
    }

    /// Registers a node. Waits as long as the server does: a follow-up may take minutes.
    ///
    /// # Errors
    /// A refusal is no error: it is in [`RegisterResponse::error`].
    pub async fn register(
        &self,
        request: &RegisterRequest,
    ) -> Result<RegisterResponse, RequestError> {
        let answer = self.post("/machine/register", request).await?;
        let answer = read_answer(answer, BODY_BYTES_MAX).await?;
        Ok(serde_json::from_slice(answer.body())?)
    }

    /// Opens a map stream: with `stream` set one without end, else one of a single message.
    pub async fn map_stream(&self, request: &MapRequest) -> Result<MapStream, RequestError> {
        let answer = self.post("/machine/map", request).await?;
        let answer = expect_success(answer).await?;
        let compressed = !request.compress.is_empty();
        Ok(MapStream::new(answer.into_body(), compressed, Arc::clone(&self.channel)))
    }

    /// Tells the server what changed about the node: a map request whose answer has no content.
    pub async fn lite_update(&self, request: &MapRequest) -> Result<(), RequestError> {
        let answer = self.post("/machine/map", request).await?;
        read_answer(answer, BODY_BYTES_MAX).await.map(drop)
    }

    /// Posts `body` and returns the answer, whatever its status.
    pub async fn post_raw(
        &self,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Response<Bytes>, RequestError> {
        self.request(Method::POST, path, body).await
    }

    /// Sends `body`, which may be empty, and returns the answer, whatever its status.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Response<Bytes>, RequestError> {
        let answer = self.send(method, path, body.into()).await?;
        read_body(answer, BODY_BYTES_MAX).await
    }

    async fn post(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Response<Incoming>, RequestError> {
        self.send(Method::POST, path, serde_json::to_vec(body)?.into()).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, RequestError> {
        // `https` whatever the channel runs over: so do stock clients.
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.authority))
            .body(Full::new(body))?;
        let mut sender = self.sender.clone();
        sender.ready().await?;
        Ok(sender.send_request(request).await?)
    }
}

/// Reads a whole answer that must be a success.
pub(crate) async fn read_answer(
    answer: Response<Incoming>,
    max: usize,
) -> Result<Response<Bytes>, RequestError> {
    read_body(expect_success(answer).await?, max).await
}

async fn expect_success(answer: Response<Incoming>) -> Result<Response<Incoming>, RequestError> {
    let status = answer.status();
    if status == StatusCode::OK {
        return Ok(answer);
    }
    let retry_after = answer
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let answer = read_body(answer, BODY_BYTES_MAX).await?;
    let message = String::from_utf8_lossy(answer.body());
    let message = message.trim().chars().take(MESSAGE_CHARS_MAX).collect();
    Err(RequestError::Status { status, message, retry_after })
}

/// Reads a body to its end, but not beyond `max` bytes.
pub(crate) async fn read_body(
    answer: Response<Incoming>,
    max: usize,
) -> Result<Response<Bytes>, RequestError> {
    let (head, mut body) = answer.into_parts();
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if data.len() > max - read.len() {
            return Err(RequestError::TooLong { max });
        }
        read.extend_from_slice(&data);
    }
    Ok(Response::from_parts(head, read.freeze()))
}

/// The tasks of one channel. They end when the token is cancelled: with the last handle on the channel.
#[derive(Clone)]
struct Tasks(CancellationToken);

impl Tasks {
    fn spawn_until_dropped(&self, task: impl Future<Output: Send> + Send + 'static) {
        let dropped = self.0.clone();
        tokio::spawn(async move { dropped.run_until_cancelled(task).await.map(drop) });
    }
}

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.spawn_until_dropped(task);
    }
}
