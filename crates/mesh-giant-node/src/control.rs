//! A control server for one node, which it tells whatever it is told to.
//!
//! It answers `/key` and `/ts2021`, and inside the channel registrations and map requests. No node is kept out and nothing is kept.

use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use mesh_keys::{ChallengePublic, MachinePrivate, NodePrivate};
use mesh_noise::{Accepted, Responder, early_payload};
use mesh_noise_io::NoiseStream;
use mesh_noise_io::http2::{Timeouts, serve};
use mesh_wire::{DerpMap, MapRequest, MapResponse, OverTlsPublicKeyResponse, RegisterResponse};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zstd::bulk::Compressor;

mod relay;

use crate::process::{processor_time, shared_clock};
use crate::tailnet::{first_added, first_map, step};

/// Has the next peer come, and the one before go.
pub(crate) const STEP: u8 = b's';

/// Asks for the processor time used so far, in nanoseconds.
pub(crate) const ASK_PROCESSOR_TIME: u8 = b'c';

/// Steps that wait to be sent; the next orders then wait.
const STEPS_MAX: usize = 64;

/// Answers that wait to be read; what has to be answered next then waits.
const ANSWERS_MAX: usize = 4;

/// As the fastest that a stock server does.
const COMPRESSION_LEVEL: i32 = 1;

/// How long a client is waited for: for ever, as far as a benchmark goes.
const PATIENCE: Duration = Duration::from_hours(1);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The server.
struct Control {
    key: MachinePrivate,
    peers: u32,
    derp_map: DerpMap,
    /// What the first map stream has to say after its first message.
    steps: Mutex<Option<mpsc::Receiver<Bytes>>>,
    answers: Answers,
}

/// Lines for whoever gives the orders.
type Answers = mpsc::Sender<String>;

/// Serves one node until nobody gives orders any more. Its first answer is the URL where it does.
pub(crate) async fn run(
    peers: u32,
    orders: impl AsyncRead + Unpin,
    answers: impl AsyncWrite + Unpin + Send + 'static,
) -> Result<()> {
    let (sender, steps) = mpsc::channel(STEPS_MAX);
    let answers = answering(answers);
    let relay = relay::Region::spawn(now()).await?;
    let control = Arc::new(Control {
        key: MachinePrivate::generate()?,
        peers,
        derp_map: relay.derp_map,
        steps: Mutex::new(Some(steps)),
        answers: answers.clone(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    answers.send(format!("http://{}", listener.local_addr()?)).await?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let _ = socket.set_nodelay(true);
            tokio::spawn(serve_outside(socket, Arc::clone(&control)));
        }
    });
    obey(peers, orders, &sender, &answers).await
}

/// Carries out orders until there are no more.
async fn obey(
    peers: u32,
    mut orders: impl AsyncRead + Unpin,
    steps: &mpsc::Sender<Bytes>,
    answers: &Answers,
) -> Result<()> {
    let mut encoder = Compressor::new(COMPRESSION_LEVEL)?;
    let mut id = first_added(peers);
    while let Ok(order) = orders.read_u8().await {
        match order {
            STEP => {
                steps.send(framed(&step(id, peers)?, &mut encoder)?).await?;
                id += 1;
            }
            ASK_PROCESSOR_TIME => answers.send(processor_time().as_nanos().to_string()).await?,
            other => bail!("no order begins with {other}"),
        }
    }
    Ok(())
}

/// Writes answers, as long as somebody reads them.
fn answering(mut to: impl AsyncWrite + Unpin + Send + 'static) -> Answers {
    let (sender, mut answers) = mpsc::channel::<String>(ANSWERS_MAX);
    tokio::spawn(async move {
        while let Some(answer) = answers.recv().await {
            if to.write_all(format!("{answer}\n").as_bytes()).await.is_err() {
                return;
            }
        }
    });
    sender
}

async fn serve_outside(socket: TcpStream, control: Arc<Control>) {
    let service = service_fn(move |request| ready(answer_outside(request, &control)));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
    let _ = connection.with_upgrades().await;
}

fn answer_outside(
    mut request: Request<Incoming>,
    control: &Arc<Control>,
) -> Result<Response<Body>> {
    if request.uri().path() == "/key" {
        let public_key = control.key.public();
        return json(&OverTlsPublicKeyResponse {
            public_key,
            ..OverTlsPublicKeyResponse::default()
        });
    }
    let initiation = request.headers().get("x-tailscale-handshake").context("no handshake")?;
    let initiation = BASE64.decode(initiation.as_bytes())?;
    let accepted = Responder::new(&control.key).respond(&initiation)?;
    let upgraded = hyper::upgrade::on(&mut request);
    let control = Arc::clone(control);
    tokio::spawn(async move {
        if let Err(error) = serve_inside(upgraded, accepted, control).await {
            tracing::warn!(error = &*error as &dyn std::error::Error, "a channel broke");
        }
    });
    let answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("upgrade", "tailscale-control-protocol")
        .header("connection", "upgrade");
    Ok(answer.body(Body::default())?)
}

async fn serve_inside(
    upgraded: hyper::upgrade::OnUpgrade,
    accepted: Accepted,
    control: Arc<Control>,
) -> Result<()> {
    let Accepted { response, transport, .. } = accepted;
    let io = TokioIo::new(upgraded.await?);
    let mut stream = NoiseStream::answering(io, &response, transport);
    let challenge = ChallengePublic::from_bytes(*NodePrivate::generate()?.public().as_bytes());
    stream.write_all(&early_payload(&challenge)).await?;
    let service = service_fn(move |request| answer_inside(request, Arc::clone(&control)));
    let timeouts = Timeouts { first_request: PATIENCE, stall: PATIENCE };
    Ok(serve(stream, service, timeouts, CancellationToken::new()).await?)
}

async fn answer_inside(
    request: Request<Incoming>,
    control: Arc<Control>,
) -> Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    if head.uri.path() == "/machine/register" {
        return json(&RegisterResponse { machine_authorized: true, ..RegisterResponse::default() });
    }
    let mut encoder = Compressor::new(COMPRESSION_LEVEL)?;
    let request: MapRequest = serde_json::from_slice(&body)?;
    if !request.stream {
        let nothing = framed(&MapResponse::default(), &mut encoder)?;
        return Ok(Response::new(Full::new(nothing).boxed_unsync()));
    }
    let steps = control.steps.lock().unwrap_or_else(PoisonError::into_inner).take();
    let steps = steps.context("a second map stream")?;
    let first = first_map(control.peers, &request, control.derp_map.clone(), now())?;
    let first = framed(&first, &mut encoder)?;
    let answers = control.answers.clone();
    let first = stream::once(async move {
        // Who gives the orders may be gone.
        let _ = answers.send(shared_clock().as_nanos().to_string()).await;
        first
    });
    let steps = stream::unfold(steps, |mut steps| async { Some((steps.recv().await?, steps)) });
    let frames = first.chain(steps).map(|message| Ok::<_, Infallible>(Frame::data(message)));
    Ok(Response::new(StreamBody::new(frames).boxed_unsync()))
}

/// A message as it goes over the wire.
fn framed(message: &MapResponse, encoder: &mut Compressor<'_>) -> Result<Bytes> {
    let payload = encoder.compress(&serde_json::to_vec(message)?)?;
    let length = u32::try_from(payload.len())?;
    Ok([&length.to_le_bytes()[..], &payload].concat().into())
}

fn json(answer: &impl serde::Serialize) -> Result<Response<Body>> {
    Ok(Response::new(Full::new(serde_json::to_vec(answer)?.into()).boxed_unsync()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a server for benches has the system's time and no other"
)]
fn now() -> Timestamp {
    Timestamp::now()
}
