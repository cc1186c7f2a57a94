//! Traffic over the tailnet: echo listeners, and transfers that verify what the echo sends back.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tailscale::{
    Device,
    netstack::{TcpListener, TcpStream, UdpSocket},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    time::timeout,
};

/// How many bytes are read and written at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// What a listener does with a connection.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Sends back what comes.
    Echo,
}

/// What `listen_tcp` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenArgs {
    port: u16,
    #[serde(rename = "mode")]
    _mode: Mode,
}

/// Serves a TCP port on the node's own IPv4 address until the process ends.
pub async fn listen(device: &Device, args: ListenArgs) -> Result<Value> {
    let address = (device.ipv4_addr().await?, args.port).into();
    let listener = device.tcp_listen(address).await?;
    tokio::spawn(serve(listener));
    Ok(Value::Null)
}

async fn serve(listener: TcpListener) {
    while let Ok(stream) = listener.accept().await {
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            if let Err(error) = tokio::io::copy(&mut reader, &mut writer).await {
                eprintln!("echo: {error}");
            }
        });
    }
}

/// What `listen_udp` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenUdpArgs {
    port: u16,
}

/// Sends back what comes to a UDP port of the node's own IPv4 address, until the process ends.
pub async fn listen_udp(device: &Device, args: ListenUdpArgs) -> Result<Value> {
    tokio::spawn(serve_udp(bind_udp(device, args.port).await?));
    Ok(Value::Null)
}

async fn bind_udp(device: &Device, port: u16) -> Result<UdpSocket> {
    Ok(device.udp_bind((device.ipv4_addr().await?, port).into()).await?)
}

async fn serve_udp(socket: UdpSocket) {
    while let Ok((from, datagram)) = socket.recv_from_bytes().await {
        if let Err(error) = socket.send_to(from, &datagram).await {
            eprintln!("datagram to {from}: {error}");
        }
    }
}

/// What `datagram` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatagramArgs {
    addr: SocketAddr,
    bytes: usize,
    timeout_ms: u64,
}

/// Sends one datagram and verifies what comes back.
pub async fn datagram(device: &Device, args: DatagramArgs) -> Result<Value> {
    let start = Instant::now();
    let mut flow = Flow::open(device, args.addr).await?;
    let answer = flow.exchange(args.bytes);
    timeout(Duration::from_millis(args.timeout_ms), answer).await.context("no answer")??;
    Ok(json!({"elapsed_ms": start.elapsed().as_secs_f64() * 1e3}))
}

/// The first port that datagrams are sent from.
const DATAGRAM_PORT: u16 = 20_000;
/// How many answers wait to be looked at.
const ANSWERS: usize = 16;

/// A UDP socket that sends to an echo port.
///
/// It has a reader of its own, and is closed only when that has just read something: the client does not survive that a
/// socket is closed that somebody waits for.
pub struct Flow {
    socket: Arc<UdpSocket>,
    to: SocketAddr,
    answers: mpsc::Receiver<(SocketAddr, Bytes)>,
}

impl Flow {
    /// Opens one from a port of its own. The client finds no free one by itself.
    pub async fn open(device: &Device, to: SocketAddr) -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(DATAGRAM_PORT);
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        let socket = Arc::new(bind_udp(device, port).await?);
        let (sender, answers) = mpsc::channel(ANSWERS);
        tokio::spawn(read(Arc::clone(&socket), sender));
        Ok(Self { socket, to, answers })
    }

    /// Sends a datagram, and verifies what comes back.
    pub async fn exchange(&mut self, bytes: usize) -> Result<()> {
        let sent = noise(bytes);
        self.socket.send_to(self.to, &sent).await?;
        let (from, received) = self.answers.recv().await.context("the socket is closed")?;
        ensure!(from == self.to, "the answer is from {from}");
        ensure!(received == sent, "received another datagram than was sent");
        Ok(())
    }
}

async fn read(socket: Arc<UdpSocket>, answers: mpsc::Sender<(SocketAddr, Bytes)>) {
    while let Ok(answer) = socket.recv_from_bytes().await {
        if answers.send(answer).await.is_err() {
            return;
        }
    }
}

/// What `transfer` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferArgs {
    /// `IP:port` or `name:port`.
    addr: String,
    bytes: usize,
    #[serde(rename = "mode")]
    _mode: Mode,
}

/// Sends bytes to a peer's echo listener and verifies what comes back.
pub async fn transfer(device: Arc<Device>, args: TransferArgs) -> Result<Value> {
    let start = Instant::now();
    let addr = resolve(&device, &args.addr).await?;
    let mut stream = connect(device, addr).await.context("dial")?;
    exchange_echo(&mut stream, args.bytes).await?;
    Ok(json!({"elapsed_ms": start.elapsed().as_secs_f64() * 1e3}))
}

/// The address of `IP:port` or of `name:port`, with a name of the netmap.
async fn resolve(device: &Device, addr: &str) -> Result<SocketAddr> {
    if let Ok(addr) = addr.parse() {
        return Ok(addr);
    }
    let (name, port) = addr.rsplit_once(':').context("no port")?;
    let peer = device.peer_by_name(name).await?.with_context(|| format!("no peer {name}"))?;
    Ok((peer.tailnet_address.ipv4.addr(), port.parse()?).into())
}

/// Connects over TCP. A dial that nobody waits for goes on by itself: the client does not survive that one is given up.
pub async fn connect(device: Arc<Device>, to: SocketAddr) -> Result<TcpStream> {
    Ok(tokio::spawn(async move { device.tcp_connect(to).await }).await??)
}

/// Moves bytes to the other end, which echoes, and verifies what comes back. The connection stays open.
pub async fn exchange_echo(stream: &mut TcpStream, bytes: usize) -> Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sent = noise(bytes);
    let sending = async { writer.write_all(&sent).await.context("send") };
    let receiving = async {
        let mut received = 0;
        let mut chunk = vec![0; CHUNK_BYTES];
        while received < sent.len() {
            let count = reader.read(&mut chunk).await.context("receive")?;
            ensure!(count > 0, "received {received} bytes of {}", sent.len());
            let expected =
                sent.get(received..received + count).context("received more than was sent")?;
            ensure!(expected == &chunk[..count], "received other bytes than were sent");
            received += count;
        }
        Ok(())
    };
    tokio::try_join!(sending, receiving)?;
    Ok(())
}

/// Bytes without pattern, the same every time: a 64-bit multiplicative generator.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state: u64 = 1;
    std::iter::repeat_with(|| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(bytes)
    .collect()
}
