//! Traffic over the tailnet: an echo listener, and a transfer that verifies what the echo sends back.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tailscale::{
    Device,
    netstack::{TcpListener, UdpSocket},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
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

/// The port that datagrams are sent from. This client finds no free one by itself, and one is sent after another.
const DATAGRAM_PORT: u16 = 20_000;

/// Sends one datagram and verifies what comes back.
pub async fn datagram(device: &Device, args: DatagramArgs) -> Result<Value> {
    let start = Instant::now();
    let socket = bind_udp(device, DATAGRAM_PORT).await?;
    let sent = noise(args.bytes);
    socket.send_to(args.addr, &sent).await?;
    let answer = timeout(Duration::from_millis(args.timeout_ms), socket.recv_from_bytes());
    let (from, received) = answer.await.context("no answer")??;
    ensure!(from == args.addr, "the answer is from {from}");
    ensure!(received == sent, "received another datagram than was sent");
    Ok(json!({"elapsed_ms": start.elapsed().as_secs_f64() * 1e3}))
}

/// What `transfer` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferArgs {
    addr: SocketAddr,
    bytes: usize,
    #[serde(rename = "mode")]
    _mode: Mode,
}

/// Sends bytes to a peer's echo listener and verifies what comes back.
pub async fn transfer(device: &Device, args: TransferArgs) -> Result<Value> {
    let start = Instant::now();
    let stream = device.tcp_connect(args.addr).await.context("dial")?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sent: Arc<[u8]> = noise(args.bytes).into();
    let sending = {
        let sent = Arc::clone(&sent);
        async move { writer.write_all(&sent).await.context("send") }
    };
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
    Ok(json!({"elapsed_ms": start.elapsed().as_secs_f64() * 1e3}))
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
