//! What it costs to tell many idle channels one small message, layer by layer, and what an idle channel holds.
//!
//! `cargo bench -p mesh-noise-io --bench fanout` measures; without `--bench` (as a test) it runs through once,
//! small. The clients are a process of their own, so that CPU time (of the whole process, all threads and what
//! the kernel does for them) and memory are the server's alone. Each layer does what the one before does, and
//! one thing more; the first is the floor.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::{Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_keys::MachinePrivate;
use mesh_noise::{INITIATION_BYTES, Initiator, RESPONSE_BYTES, Responder};
use mesh_noise_io::NoiseStream;
use mesh_noise_io::http2::{self, Timeouts};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Bytes of a message: what one patch or one peer takes, compressed.
const MESSAGE_BYTES: usize = 600;

/// Between two messages: everybody is idle again.
const PAUSE: Duration = Duration::from_millis(150);

const TIMEOUTS: Timeouts =
    Timeouts { first_request: Duration::from_secs(10), stall: Duration::from_mins(1) };

/// Says to a copy of this program that it is the clients: the layer, the address, and how many.
const CLIENT_ARGUMENT: &str = "--clients";

#[derive(Debug, Clone, Copy)]
struct Scale {
    channels: usize,
    rounds: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == CLIENT_ARGUMENT) {
        return be_clients(&arguments[at + 1..]);
    }
    let is_measured = arguments.iter().any(|argument| argument == "--bench");
    let scale = if is_measured {
        Scale { channels: 2000, rounds: 20 }
    } else {
        Scale { channels: 20, rounds: 2 }
    };
    let number = |name: &str| {
        arguments.iter().find_map(|argument| argument.strip_prefix(name)?.parse().ok())
    };
    let scale = Scale {
        channels: number("--channels=").unwrap_or(scale.channels),
        rounds: number("--rounds=").unwrap_or(scale.rounds),
    };
    let only = arguments.iter().find_map(|argument| argument.strip_prefix("--layer="));
    println!(
        "{} channels, {MESSAGE_BYTES} bytes a message, {} messages\n",
        scale.channels, scale.rounds
    );
    println!("| layer | CPU per message and channel | resident per idle channel |\n|---|---|---|");
    for layer in [Layer::Write, Layer::Tokio, Layer::Noise, Layer::Http2, Layer::Pieces] {
        if only.is_none_or(|only| only == layer.name()) {
            layer.measure(scale);
        }
    }
}

/// How much of the way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    /// The system call alone, from one thread.
    Write,
    /// A task for each connection, woken to write.
    Tokio,
    /// The same, sealed.
    Noise,
    /// The same, as the body of an HTTP/2 response.
    Http2,
    /// The same, the message in three pieces.
    Pieces,
}

impl Layer {
    fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Tokio => "tokio",
            Self::Noise => "noise",
            Self::Http2 => "http2",
            Self::Pieces => "pieces",
        }
    }

    fn shown(self) -> &'static str {
        match self {
            Self::Write => "`write` to a loopback socket: the floor",
            Self::Tokio => "and a task woken for each",
            Self::Noise => "and sealed in a record",
            Self::Http2 => "and framed by HTTP/2",
            Self::Pieces => "in three pieces instead of one",
        }
    }

    fn measure(self, scale: Scale) {
        let Figures { cpu, resident } =
            if self == Self::Write { measure_write(scale) } else { self.measure_tasks(scale) };
        println!("| {} | {:.2} us | {} |", self.shown(), cpu.as_secs_f64() * 1e6, resident);
    }

    fn measure_tasks(self, scale: Scale) -> Figures {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(measure_channels(self, scale))
    }
}

/// Per message and channel, and per channel.
struct Figures {
    cpu: Duration,
    resident: String,
}

impl Figures {
    fn new(cpu: Duration, resident_bytes: usize, scale: Scale) -> Self {
        let messages = u32::try_from(scale.channels * scale.rounds).expect("few messages");
        let resident = format!("{} bytes", resident_bytes / scale.channels);
        Self { cpu: cpu / messages.max(1), resident }
    }
}

fn measure_write(scale: Scale) -> Figures {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let before = resident_bytes();
    let _clients = Clients::start(Layer::Write, listener.local_addr().expect("an address"), scale);
    let mut sockets: Vec<TcpStream> = (0..scale.channels)
        .map(|_| {
            let (socket, _) = listener.accept().expect("a client");
            socket.set_nodelay(true).expect("an open socket");
            socket
        })
        .collect();
    std::thread::sleep(PAUSE);
    let resident = resident_bytes().saturating_sub(before);
    let message = [7; MESSAGE_BYTES];
    let mut cpu = Duration::ZERO;
    for _ in 0..scale.rounds {
        let start = cpu_time();
        for socket in &mut sockets {
            socket.write_all(&message).expect("a reader");
        }
        cpu += cpu_time().saturating_sub(start);
        std::thread::sleep(PAUSE);
    }
    Figures::new(cpu, resident, scale)
}

/// What all tasks of a measurement share.
#[derive(Clone)]
struct Hub {
    layer: Layer,
    newest: watch::Receiver<u64>,
    written: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
    message: Bytes,
}

async fn measure_channels(layer: Layer, scale: Scale) -> Figures {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let listener = socket.listen(4096).expect("a listener");
    let (newest, receiver) = watch::channel(0);
    let hub = Hub {
        layer,
        newest: receiver,
        written: Arc::default(),
        opened: Arc::default(),
        message: Bytes::from(vec![7; MESSAGE_BYTES]),
    };
    let before = resident_bytes();
    let _clients = Clients::start(layer, listener.local_addr().expect("an address"), scale);
    for _ in 0..scale.channels {
        let (socket, _) = listener.accept().await.expect("a client");
        socket.set_nodelay(true).expect("an open socket");
        tokio::spawn(hub.clone().serve(socket));
    }
    while hub.opened.load(Ordering::Relaxed) < scale.channels {
        tokio::time::sleep(PAUSE / 10).await;
    }
    tokio::time::sleep(2 * PAUSE).await;
    let resident = resident_bytes().saturating_sub(before);
    let start = cpu_time();
    for round in 1..=scale.rounds {
        newest.send_replace(round as u64);
        while hub.written.load(Ordering::Relaxed) < scale.channels * round {
            tokio::time::sleep(PAUSE / 10).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
    let cpu = cpu_time().saturating_sub(start);
    Figures::new(cpu, resident, scale)
}

impl Hub {
    async fn serve(self, mut socket: tokio::net::TcpStream) {
        match self.layer {
            Layer::Write | Layer::Tokio => self.serve_plain(socket).await,
            Layer::Noise => {
                let channel = accept(&mut socket).await;
                self.serve_noise(NoiseStream::answering(socket, &channel.0, channel.1)).await;
            }
            Layer::Http2 | Layer::Pieces => {
                let channel = accept(&mut socket).await;
                let stream = NoiseStream::answering(socket, &channel.0, channel.1);
                let service = service_fn(move |_: Request<Incoming>| {
                    std::future::ready(Ok::<_, Infallible>(Response::new(self.clone().body())))
                });
                let _ = http2::serve(stream, service, TIMEOUTS, CancellationToken::new()).await;
            }
        }
    }

    async fn serve_plain(mut self, mut socket: tokio::net::TcpStream) {
        self.opened.fetch_add(1, Ordering::Relaxed);
        while self.newest.changed().await.is_ok() {
            socket.write_all(&self.message).await.expect("a reader");
            self.written.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn serve_noise(mut self, mut stream: NoiseStream<tokio::net::TcpStream>) {
        stream.flush().await.expect("a reader");
        self.opened.fetch_add(1, Ordering::Relaxed);
        while self.newest.changed().await.is_ok() {
            stream.write_all(&self.message).await.expect("a reader");
            stream.flush().await.expect("a reader");
            self.written.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A body that never ends, of one message after the other.
    fn body(self) -> impl hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let pieces = if self.layer == Layer::Pieces { 3 } else { 1 };
        let messages = stream::unfold(self, |mut hub| async move {
            hub.newest.changed().await.ok()?;
            hub.written.fetch_add(1, Ordering::Relaxed);
            Some((hub.message.clone(), hub))
        });
        let frames = messages.flat_map(move |message| {
            let length = message.len() / pieces;
            stream::iter((0..pieces).map(move |piece| {
                let start = piece * length;
                let end = if piece + 1 == pieces { message.len() } else { start + length };
                Ok(Frame::data(message.slice(start..end)))
            }))
        });
        StreamBody::new(frames)
    }
}

fn server_key() -> MachinePrivate {
    MachinePrivate::from_bytes([2; 32])
}

/// Answers a bare handshake, without the HTTP around it.
async fn accept(
    socket: &mut tokio::net::TcpStream,
) -> ([u8; RESPONSE_BYTES], mesh_noise::Transport) {
    let mut initiation = [0; INITIATION_BYTES];
    socket.read_exact(&mut initiation).await.expect("an initiation");
    let accepted = Responder::new(&server_key()).respond(&initiation).expect("a handshake");
    (accepted.response, accepted.transport)
}

/// The process with the other ends of all channels. It ends with the handle.
struct Clients(Child);

impl Clients {
    fn start(layer: Layer, server: SocketAddr, scale: Scale) -> Self {
        let program = std::env::args_os().next().expect("this program");
        let child = Command::new(program)
            .args([CLIENT_ARGUMENT, layer.name(), &server.to_string()])
            .arg(scale.channels.to_string())
            .stdin(Stdio::piped())
            .spawn()
            .expect("a process");
        Self(child)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn be_clients(arguments: &[String]) {
    let [layer, server, count] = arguments else { panic!("{arguments:?}") };
    let server: SocketAddr = server.parse().expect("an address");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        for _ in 0..count.parse().expect("a number") {
            let socket = tokio::net::TcpStream::connect(server).await.expect("the server");
            match layer.as_str() {
                "write" | "tokio" => drop(tokio::spawn(drain(socket))),
                "noise" => drop(tokio::spawn(drain(initiate(socket).await.0))),
                _ => {
                    let (socket, transport) = initiate(socket).await;
                    drop(tokio::spawn(drain_http2(NoiseStream::new(socket, transport))));
                }
            }
        }
        // Until the server's process ends, or kills us.
        let wait = || std::io::stdin().read(&mut [0]).map(drop);
        let _ = tokio::task::spawn_blocking(wait).await;
    });
    std::process::exit(0);
}

async fn initiate(
    mut socket: tokio::net::TcpStream,
) -> (tokio::net::TcpStream, mesh_noise::Transport) {
    let key = MachinePrivate::from_bytes([1; 32]);
    let initiator = Initiator::new(&key, &server_key().public(), 130).expect("an initiation");
    socket.write_all(initiator.initiation()).await.expect("a reader");
    let mut response = [0; RESPONSE_BYTES];
    socket.read_exact(&mut response).await.expect("a response");
    (socket, initiator.finish(&response).expect("a handshake"))
}

async fn drain(mut socket: tokio::net::TcpStream) {
    let mut buffer = vec![0; 16 << 10];
    while socket.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
}

async fn drain_http2(stream: NoiseStream<tokio::net::TcpStream>) {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let request = Request::get("https://test/").body(Empty::<Bytes>::new()).expect("a request");
    let response = sender.send_request(request).await.expect("a response");
    let mut body = std::pin::pin!(http_body_util::BodyStream::new(response.into_body()));
    while let Some(Ok(_)) = body.next().await {}
}

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// Memory of this process that lies in RAM.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux");
    let kib: usize = line.split_whitespace().nth(1).expect("Linux").parse().expect("Linux");
    kib << 10
}
