//! Traffic over the tailnet: echo ports, and transfers that verify what comes back.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use mesh_integration::Transfer;
use mesh_node::{Node, Stream, TcpListener, TcpStream, UdpSocket};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, split};
use tokio::time::{Instant, timeout};

use crate::load::drain;
use crate::report::{cur_addr, peer_at};

/// Longest datagram.
const DATAGRAM_BYTES_MAX: usize = 1 << 16;

/// What a listener does with a connection.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Sends back what comes.
    Echo,
    /// Reads to the end, and answers how many bytes came.
    Drain,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenTcpArgs {
    port: u16,
    mode: Mode,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenUdpArgs {
    port: u16,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TransferArgs {
    addr: String,
    bytes: usize,
    #[serde(rename = "mode")]
    _mode: Mode,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatagramArgs {
    addr: SocketAddr,
    bytes: usize,
    timeout_ms: u64,
}

/// Serves a TCP port on the node's own addresses until the node closes.
pub(crate) fn listen_tcp(node: &Node, args: &ListenTcpArgs) -> Result<Value> {
    tokio::spawn(serve_tcp(node.listen(args.port)?, args.mode));
    Ok(Value::Null)
}

async fn serve_tcp(mut listener: TcpListener, mode: Mode) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let served = match mode {
                Mode::Echo => echo(stream).await,
                Mode::Drain => drain(stream).await,
            };
            served.inspect_err(|error| tracing::warn!(%error, "connection ended early"))
        });
    }
}

async fn echo(stream: TcpStream) -> Result<()> {
    let (mut read, mut write) = split(stream);
    copy(&mut read, &mut write).await?;
    Ok(write.shutdown().await?)
}

/// Sends back what comes to a UDP port of the node's own IPv4 address, until the node closes.
pub(crate) fn listen_udp(node: &Node, args: &ListenUdpArgs) -> Result<Value> {
    tokio::spawn(serve_udp(bind_udp(node, args.port)?));
    Ok(Value::Null)
}

/// A UDP socket of the node's own IPv4 address, with a free port for 0.
pub(crate) fn bind_udp(node: &Node, port: u16) -> Result<UdpSocket> {
    let address = node.ips().into_iter().find(IpAddr::is_ipv4).context("no IPv4 address")?;
    Ok(node.listen_packet(SocketAddr::new(address, port))?)
}

async fn serve_udp(socket: UdpSocket) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        if let Err(error) = socket.send_to(&buffer[..length], from).await {
            tracing::warn!(%error, "datagram was not sent back");
        }
    }
}

/// Moves bytes to a peer's echo port and back over one TCP connection, and verifies them.
pub(crate) async fn transfer(node: &Node, args: &TransferArgs) -> Result<Value> {
    let start = Instant::now();
    let mut stream = dial_peer(node, &args.addr).await.context("dial")?;
    exchange_echo(&mut stream, args.bytes).await?;
    let elapsed_ms = milliseconds(start);
    let peer = peer_at(node, stream.peer_addr()?.ip()).await?;
    Ok(serde_json::to_value(Transfer { elapsed_ms, cur_addr: cur_addr(&peer) })?)
}

/// Connects to a peer. The node dials other addresses over the machine's own network, which is an error here.
pub(crate) async fn dial_peer(node: &Node, address: &str) -> Result<Stream> {
    match node.dial(address).await? {
        stream @ Stream::Tailnet(_) => Ok(stream),
        Stream::Machine(_) => bail!("{address} is no address of a peer"),
    }
}

/// Sends one datagram to a peer's echo port, and verifies what comes back.
pub(crate) async fn datagram(node: &Node, args: &DatagramArgs) -> Result<Value> {
    let socket = bind_udp(node, 0)?;
    let start = Instant::now();
    let answer = exchange_datagram(&socket, args.addr, args.bytes);
    timeout(Duration::from_millis(args.timeout_ms), answer).await.context("no answer")??;
    Ok(json!({"elapsed_ms": milliseconds(start)}))
}

/// Sends a datagram to an echo port, and verifies what comes back.
pub(crate) async fn exchange_datagram(
    socket: &UdpSocket,
    to: SocketAddr,
    bytes: usize,
) -> Result<()> {
    let sent = noise(bytes);
    let mut received = vec![0; DATAGRAM_BYTES_MAX];
    socket.send_to(&sent, to).await?;
    let (length, from) = socket.recv_from(&mut received).await?;
    ensure!(from == to, "the answer is from {from}");
    ensure!(received[..length] == sent, "received another datagram than was sent");
    Ok(())
}

/// Moves bytes to the other end, which echoes, and verifies what comes back. The connection stays open.
pub(crate) async fn exchange_echo(stream: &mut Stream, bytes: usize) -> Result<()> {
    let sent = noise(bytes);
    let mut received = vec![0; bytes];
    let (mut read, mut write) = split(stream);
    let sending = async { write.write_all(&sent).await.context("send") };
    let receiving = async { read.read_exact(&mut received).await.context("receive") };
    tokio::try_join!(sending, receiving)?;
    ensure!(received == sent, "received other bytes than were sent");
    Ok(())
}

/// How long it is since `start`.
pub(crate) fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Bytes without pattern, the same every time: a 64-bit multiplicative generator.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state: u64 = 1;
    let next = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}
