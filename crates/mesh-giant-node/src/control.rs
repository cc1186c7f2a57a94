//! A control server for one node, which it tells whatever it is told to.
//!
//! It answers registrations and map requests. No node is kept out and nothing is kept.

use std::future::ready;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response};
use jiff::Timestamp;
use mesh_testkit::control_server::{
    self, Answer, COMPRESSION_LEVEL, ControlServer, Region, encode, framed, json,
};
use mesh_wire::{MapRequest, RegisterResponse};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use zstd::bulk::Compressor;

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

/// What the node is told.
struct Control {
    peers: u32,
    region: Region,
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
    let control = Control {
        peers,
        region: Region::spawn().await?,
        steps: Mutex::new(Some(steps)),
        answers: answers.clone(),
    };
    let server = ControlServer::spawn(move |request| ready(answer(&request, &control))).await?;
    answers.send(server.url().to_owned()).await?;
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
                let message = serde_json::to_vec(&step(id, peers)?)?;
                steps.send(framed(&encoder.compress(&message)?)).await?;
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

fn answer(request: &Request<Bytes>, control: &Control) -> Answer {
    if request.uri().path() == "/machine/register" {
        let answer = RegisterResponse { machine_authorized: true, ..RegisterResponse::default() };
        return Ok(json(&answer));
    }
    let request: MapRequest = serde_json::from_slice(request.body())?;
    if !request.stream {
        return Ok(Response::default());
    }
    let steps = control.steps.lock().unwrap_or_else(PoisonError::into_inner).take();
    let steps = steps.ok_or("a second map stream")?;
    let first = encode(&first_map(control.peers, &request, &control.region.derp_map, now())?);
    let answers = control.answers.clone();
    let first = stream::once(async move {
        // Who gives the orders may be gone.
        let _ = answers.send(shared_clock().as_nanos().to_string()).await;
        first
    });
    let steps = stream::unfold(steps, |mut steps| async { Some((steps.recv().await?, steps)) });
    Ok(control_server::stream(first.chain(steps)))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a server for benches has the system's time and no other"
)]
fn now() -> Timestamp {
    Timestamp::now()
}
