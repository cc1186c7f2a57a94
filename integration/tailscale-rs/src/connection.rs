//! Connections that stay open: what `dial` opened, by the numbers it gave out.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use tailscale::{Device, netstack::TcpStream};
use tokio::{sync::Mutex, time::timeout};

use crate::traffic::{self, Flow};

/// The open connections of this process.
#[derive(Default)]
pub struct Connections {
    last: u64,
    open: HashMap<u64, Arc<Mutex<Connection>>>,
}

enum Connection {
    Tcp(TcpStream),
    Udp(Flow),
}

/// Over what to connect.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Network {
    #[default]
    Tcp,
    Udp,
}

/// What `dial` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DialArgs {
    addr: SocketAddr,
    timeout_ms: u64,
    #[serde(default)]
    network: Network,
}

/// What `exchange` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExchangeArgs {
    conn: u64,
    bytes: usize,
    timeout_ms: u64,
}

/// What `hang_up` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HangUpArgs {
    conn: u64,
}

/// Opens a connection and keeps it. That nobody answers in time is an answer too.
pub async fn dial(
    device: Arc<Device>,
    connections: &Mutex<Connections>,
    args: DialArgs,
) -> Result<Value> {
    let start = Instant::now();
    let dialed =
        timeout(Duration::from_millis(args.timeout_ms), open(device, args.network, args.addr));
    let dialed = dialed.await;
    let elapsed_ms = start.elapsed().as_secs_f64() * 1e3;
    let refusal = match dialed {
        Ok(Ok(connection)) => {
            let conn = connections.lock().await.keep(connection);
            return Ok(json!({"conn": conn, "elapsed_ms": elapsed_ms}));
        }
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => "nobody answers".to_owned(),
    };
    Ok(json!({"refusal": refusal, "elapsed_ms": elapsed_ms}))
}

async fn open(device: Arc<Device>, network: Network, to: SocketAddr) -> Result<Connection> {
    Ok(match network {
        Network::Tcp => Connection::Tcp(traffic::connect(device, to).await?),
        Network::Udp => Connection::Udp(Flow::open(&device, to).await?),
    })
}

/// Moves bytes over a connection to an echo port and verifies them. The connection stays open.
pub async fn exchange(connections: &Mutex<Connections>, args: ExchangeArgs) -> Result<Value> {
    let found = connections.lock().await.open.get(&args.conn).cloned();
    let connection = found.with_context(|| format!("there is no connection {}", args.conn))?;
    let mut connection = connection.lock().await;
    let exchanged = async {
        match &mut *connection {
            Connection::Tcp(stream) => traffic::exchange_echo(stream, args.bytes).await,
            Connection::Udp(flow) => flow.exchange(args.bytes).await,
        }
    };
    timeout(Duration::from_millis(args.timeout_ms), exchanged)
        .await
        .context("the bytes do not come back")??;
    Ok(Value::Null)
}

/// Closes a connection.
pub async fn hang_up(connections: &Mutex<Connections>, args: HangUpArgs) -> Result<Value> {
    let found = connections.lock().await.open.remove(&args.conn);
    found.with_context(|| format!("there is no connection {}", args.conn))?;
    Ok(Value::Null)
}

impl Connections {
    fn keep(&mut self, connection: Connection) -> u64 {
        self.last += 1;
        self.open.insert(self.last, Arc::new(Mutex::new(connection)));
        self.last
    }
}
