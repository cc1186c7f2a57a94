//! Load: how much passes, and how long a byte takes there and back.

use std::time::Duration;

use anyhow::Result;
use mesh_node::{Node, TcpStream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::traffic::{dial_peer, milliseconds};

/// How much is written and read at a time.
const CHUNK_BYTES: usize = 256 << 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FloodArgs {
    addr: String,
    seconds: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoundTripsArgs {
    addr: String,
    count: usize,
}

/// Reads to the end, and answers how many bytes came.
pub(crate) async fn drain(mut stream: TcpStream) -> Result<()> {
    let (mut chunk, mut bytes) = (vec![0; CHUNK_BYTES], 0);
    loop {
        let length = stream.read(&mut chunk).await?;
        bytes += length as u64;
        if length == 0 {
            stream.write_u64(bytes).await?;
            return Ok(stream.shutdown().await?);
        }
    }
}

/// Sends as fast as it can over one TCP connection.
pub(crate) async fn flood(node: &Node, args: &FloodArgs) -> Result<Value> {
    let mut stream = dial_peer(node, &args.addr).await?;
    let (chunk, start) = (vec![0; CHUNK_BYTES], Instant::now());
    while start.elapsed() < Duration::from_secs(args.seconds) {
        stream.write_all(&chunk).await?;
    }
    stream.shutdown().await?;
    let bytes = stream.read_u64().await?;
    Ok(json!({"bytes": bytes, "elapsed_ms": milliseconds(start)}))
}

/// Sends a byte and waits for it, again and again, over one TCP connection.
pub(crate) async fn round_trips(node: &Node, args: &RoundTripsArgs) -> Result<Value> {
    let mut stream = dial_peer(node, &args.addr).await?;
    let mut byte = [0];
    let mut took = Vec::new();
    for _ in 0..args.count {
        let start = Instant::now();
        stream.write_all(&byte).await?;
        stream.read_exact(&mut byte).await?;
        took.push(milliseconds(start) * 1e3);
    }
    took.sort_by(f64::total_cmp);
    let at = |hundredth: usize| took[took.len() * hundredth / 100];
    Ok(json!({"p50_us": at(50), "p99_us": at(99)}))
}
