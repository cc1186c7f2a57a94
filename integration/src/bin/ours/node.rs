//! The node of this process and its open connections.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_node::{Node, Stream, UdpSocket};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::report;
use crate::traffic::{bind_udp, dial_peer, exchange_datagram, exchange_echo, milliseconds};

const NOT_UP: &str = "the node was never brought up";

/// The one node of this process. The default has not been brought up.
#[derive(Debug, Default)]
pub(crate) struct Driven {
    running: Mutex<Option<Running>>,
    connections: Mutex<Connections>,
}

#[derive(Debug)]
struct Running {
    node: Arc<Node>,
    /// What it was made with.
    auth_key: Option<String>,
    /// Whether it was up, so that others reach it.
    was_up: Arc<AtomicBool>,
}

/// What `dial` opened, by the numbers it gave out.
#[derive(Debug, Default)]
struct Connections {
    last: u64,
    open: HashMap<u64, Arc<Mutex<Connection>>>,
}

#[derive(Debug)]
enum Connection {
    Tcp(Stream),
    Udp { socket: UdpSocket, to: SocketAddr },
}

/// What `up` takes: the tsnet driver's arguments, of which this client has these.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpArgs {
    control_url: String,
    dir: PathBuf,
    auth_key: Option<String>,
    hostname: Option<String>,
    #[serde(default)]
    ephemeral: bool,
    #[serde(default)]
    advertise_tags: Vec<String>,
    #[serde(default)]
    force_reauth: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DialArgs {
    addr: String,
    timeout_ms: u64,
    #[serde(default)]
    network: Network,
}

/// What to connect over.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Network {
    #[default]
    Tcp,
    Udp,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExchangeArgs {
    conn: u64,
    bytes: usize,
    timeout_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HangUpArgs {
    conn: u64,
}

impl Driven {
    /// Starts the node from the keys in its directory, in place of the one that was there, or has that one log in anew. Returns
    /// without waiting for the outcome.
    pub(crate) async fn up(&self, args: UpArgs) -> Result<Value> {
        let mut running = self.running.lock().await;
        if args.force_reauth {
            let running = running.as_ref().context(NOT_UP)?;
            ensure!(running.auth_key == args.auth_key, "this client cannot change its key");
            tokio::spawn(log_in_anew(Arc::clone(&running.node)));
            return Ok(Value::Null);
        }
        if let Some(before) = running.take() {
            before.node.close().await;
        }
        let builder = Node::builder()
            .control_url(args.control_url)
            .auth_key(args.auth_key.clone().unwrap_or_default())
            .hostname(args.hostname.unwrap_or_default())
            .state_dir(args.dir)
            .ephemeral(args.ephemeral)
            .advertise_tags(args.advertise_tags);
        let node = Arc::new(builder.build().await?);
        let was_up = Arc::<AtomicBool>::default();
        tokio::spawn(watch_up(Arc::clone(&node), Arc::clone(&was_up)));
        *running = Some(Running { node, auth_key: args.auth_key, was_up });
        Ok(Value::Null)
    }

    /// The node, once it was brought up.
    pub(crate) async fn node(&self) -> Result<Arc<Node>> {
        let running = self.running.lock().await;
        running.as_ref().map(|running| Arc::clone(&running.node)).context(NOT_UP)
    }

    /// What the node says of itself and others.
    pub(crate) async fn status(&self) -> Result<Value> {
        let running = self.running.lock().await;
        let Running { node, was_up, .. } = running.as_ref().context(NOT_UP)?;
        let status = report::status(node, was_up.load(Ordering::Relaxed)).await?;
        Ok(serde_json::to_value(status)?)
    }

    /// Leaves the tailnet. The process can be brought up again.
    pub(crate) async fn logout(&self) -> Result<Value> {
        self.node().await?.logout().await?;
        Ok(Value::Null)
    }

    /// Ends the node.
    pub(crate) async fn close(&self) -> Result<Value> {
        if let Some(running) = self.running.lock().await.take() {
            running.node.close().await;
        }
        Ok(Value::Null)
    }

    /// Opens a connection and keeps it. That nobody answers in time is an answer too; one over UDP asks nobody.
    pub(crate) async fn dial(&self, args: &DialArgs) -> Result<Value> {
        let node = self.node().await?;
        let start = Instant::now();
        let dialed = timeout(Duration::from_millis(args.timeout_ms), open(&node, args)).await;
        let elapsed_ms = milliseconds(start);
        let refusal = match dialed {
            Ok(Ok(connection)) => {
                let conn = self.connections.lock().await.keep(connection);
                return Ok(json!({"conn": conn, "elapsed_ms": elapsed_ms}));
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "nobody answers".to_owned(),
        };
        Ok(json!({"refusal": refusal, "elapsed_ms": elapsed_ms}))
    }

    /// Moves bytes over a connection to an echo port and verifies them. The connection stays open.
    pub(crate) async fn exchange(&self, args: &ExchangeArgs) -> Result<Value> {
        let found = self.connections.lock().await.open.get(&args.conn).cloned();
        let connection = found.with_context(|| format!("there is no connection {}", args.conn))?;
        let mut connection = connection.lock().await;
        timeout(Duration::from_millis(args.timeout_ms), connection.exchange(args.bytes))
            .await
            .context("the bytes do not come back")??;
        Ok(Value::Null)
    }

    /// Closes a connection.
    pub(crate) async fn hang_up(&self, args: &HangUpArgs) -> Result<Value> {
        let found = self.connections.lock().await.open.remove(&args.conn);
        found.with_context(|| format!("there is no connection {}", args.conn))?;
        Ok(Value::Null)
    }
}

impl Connections {
    fn keep(&mut self, connection: Connection) -> u64 {
        self.last += 1;
        self.open.insert(self.last, Arc::new(Mutex::new(connection)));
        self.last
    }
}

impl Connection {
    async fn exchange(&mut self, bytes: usize) -> Result<()> {
        match self {
            Self::Tcp(stream) => exchange_echo(stream, bytes).await,
            Self::Udp { socket, to } => exchange_datagram(socket, *to, bytes).await,
        }
    }
}

async fn open(node: &Node, args: &DialArgs) -> Result<Connection> {
    Ok(match args.network {
        Network::Tcp => Connection::Tcp(dial_peer(node, &args.addr).await?),
        Network::Udp => Connection::Udp { socket: bind_udp(node, 0)?, to: args.addr.parse()? },
    })
}

async fn watch_up(node: Arc<Node>, was_up: Arc<AtomicBool>) {
    match node.up().await {
        Ok(_) => was_up.store(true, Ordering::Relaxed),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "node does not come up");
        }
    }
}

async fn log_in_anew(node: Arc<Node>) {
    if let Err(error) = node.reauthenticate().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "no new login");
    }
}
