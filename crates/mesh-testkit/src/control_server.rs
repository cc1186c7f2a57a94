//! A control server without a mind of its own, for tests and benches: nodes find its key, come into the channel and ask there,
//! and what they are answered is the caller's.

mod relay;

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::future::BoxFuture;
use futures_util::stream::{Stream, StreamExt as _};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mesh_keys::{ChallengePublic, MachinePrivate};
use mesh_noise::{Accepted, Responder, early_payload};
use mesh_noise_io::NoiseStream;
use mesh_noise_io::http2::{Timeouts, serve};
use mesh_wire::{MapResponse, OverTlsPublicKeyResponse};
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use relay::Region;

/// As the fastest that a stock server does.
pub const COMPRESSION_LEVEL: i32 = 1;

/// How long a client is waited for: for ever, as far as tests and benches go.
const PATIENCE: Duration = Duration::from_hours(1);

/// The body of an answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What comes of a request. Who asked is not told of an error: the request breaks.
pub type Answer = Result<Response<Body>, Box<dyn Error + Send + Sync>>;

/// A control server on this machine. It ends when this is dropped, and with it every connection.
#[derive(Debug)]
pub struct ControlServer {
    url: String,
    tasks: JoinSet<()>,
}

impl ControlServer {
    /// Starts a server on a port that is free.
    ///
    /// It hands out its key and opens channels. What else is asked is for `answer`: inside a channel, in HTTP/2, and outside,
    /// in HTTP/1.1. Answers are computed in the task of the connection.
    pub async fn spawn<A>(
        answer: impl Fn(Request<Bytes>) -> A + Send + Sync + 'static,
    ) -> io::Result<Self>
    where
        A: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let key = MachinePrivate::from_bytes([2; 32]);
        let door = Door { key, answer: Box::new(move |request| Box::pin(answer(request))) };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::new(door)));
        Ok(Self { url, tasks })
    }

    /// Where nodes find it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends the server and waits for that.
    pub async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }
}

/// What connections are served with.
struct Door {
    key: MachinePrivate,
    answer: Box<dyn Fn(Request<Bytes>) -> BoxFuture<'static, Answer> + Send + Sync>,
}

/// The channel that a connection is to become.
type Switch = (OnUpgrade, Accepted);

async fn accept(listener: TcpListener, door: Arc<Door>) {
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        socket.set_nodelay(true).ok();
        connections.spawn(Arc::clone(&door).serve(socket));
    }
}

impl Door {
    /// Serves a connection, and the channel that it becomes. Who hangs up ends it.
    async fn serve(self: Arc<Self>, socket: TcpStream) {
        let (switching, mut switched) = mpsc::channel(1);
        let outside = Arc::clone(&self);
        let service = service_fn(move |request| {
            Arc::clone(&outside).answer_outside(request, switching.clone())
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
        connection.with_upgrades().await.ok();
        if let Some(switch) = switched.recv().await {
            self.serve_channel(switch).await.ok();
        }
    }

    async fn answer_outside(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        switching: mpsc::Sender<Switch>,
    ) -> Answer {
        match request.uri().path() {
            "/key" => {
                let public_key = self.key.public();
                let answer = OverTlsPublicKeyResponse { public_key, ..Default::default() };
                Ok(json(&answer))
            }
            "/ts2021" => {
                let initiation = request.headers().get("x-tailscale-handshake");
                let initiation = BASE64.decode(initiation.ok_or("no handshake")?.as_bytes())?;
                let accepted = Responder::new(&self.key).respond(&initiation)?;
                switching.try_send((hyper::upgrade::on(&mut request), accepted)).ok();
                let answer = Response::builder()
                    .status(StatusCode::SWITCHING_PROTOCOLS)
                    .header("upgrade", "tailscale-control-protocol")
                    .header("connection", "upgrade");
                Ok(answer.body(Body::default())?)
            }
            _ => self.answer(request).await,
        }
    }

    async fn serve_channel(
        self: Arc<Self>,
        (upgrade, accepted): Switch,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let Accepted { response, transport, .. } = accepted;
        let mut stream = NoiseStream::answering(TokioIo::new(upgrade.await?), &response, transport);
        let challenge = ChallengePublic::from_bytes([5; 32]);
        stream.write_all(&early_payload(&challenge)).await?;
        let service = service_fn(move |request| Arc::clone(&self).answer(request));
        let timeouts = Timeouts { first_request: PATIENCE, stall: PATIENCE };
        Ok(serve(stream, service, timeouts, CancellationToken::new()).await?)
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        (self.answer)(Request::from_parts(head, body)).await
    }
}

/// An answer in JSON.
pub fn json(answer: &impl Serialize) -> Response<Body> {
    whole(serde_json::to_vec(answer).expect("plain data"))
}

/// An answer of some bytes.
pub fn whole(body: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(body.into()).boxed_unsync())
}

/// An answer that goes on as long as there are pieces.
pub fn stream(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Response<Body> {
    let frames = pieces.map(|piece| Ok(Frame::data(piece)));
    Response::new(StreamBody::new(frames).boxed_unsync())
}

/// A message as it goes over a map stream, compressed.
pub fn encode(message: &MapResponse) -> Bytes {
    let json = serde_json::to_vec(message).expect("plain data");
    framed(&zstd::bulk::compress(&json, COMPRESSION_LEVEL).expect("memory for it"))
}

/// A payload of a map stream behind its length.
pub fn framed(payload: &[u8]) -> Bytes {
    let length = u32::try_from(payload.len()).expect("a message of less than 4 GiB");
    [&length.to_le_bytes(), payload].concat().into()
}
