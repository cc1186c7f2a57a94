//! `ours`: the driver of the bundled node: one node in one process, told what to do over stdin and stdout.
//!
//! The line protocol is that of the tsnet driver, described in `../../../README.md`, less what this client has not. Cargo
//! builds it with the scenarios and tells them where it is.

mod load;
mod node;
mod report;
mod traffic;

use std::process::exit;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Stdout, stdin, stdout};
use tokio::sync::Mutex;

use crate::node::Driven;

/// What of the client's log goes to stderr.
const LOGGED: &str = "info,mesh_node=debug";

/// One line of stdin.
#[derive(Deserialize)]
struct Request {
    id: u64,
    cmd: String,
    #[serde(default)]
    args: Value,
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(LOGGED)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let driven = Arc::<Driven>::default();
    let replies = Arc::new(Mutex::new(stdout()));
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let request = serde_json::from_str(&line).context("request")?;
        tokio::spawn(answer(Arc::clone(&driven), Arc::clone(&replies), request));
    }
    // The scenario is gone or closed our stdin: leave as a killed daemon would.
    exit(0)
}

/// Runs one request and writes its reply; after `close` the process ends.
async fn answer(driven: Arc<Driven>, replies: Arc<Mutex<Stdout>>, request: Request) {
    let (id, last) = (request.id, request.cmd == "close");
    let reply = match run(&driven, request).await {
        Ok(result) => json!({"id": id, "ok": true, "result": result}),
        Err(error) => json!({"id": id, "ok": false, "error": format!("{error:#}")}),
    };
    let mut replies = replies.lock().await;
    let written = async {
        replies.write_all(format!("{reply}\n").as_bytes()).await?;
        replies.flush().await
    };
    if written.await.is_err() || last {
        exit(0);
    }
}

async fn run(driven: &Driven, request: Request) -> Result<Value> {
    let args = request.args;
    match &*request.cmd {
        "up" => driven.up(parse(args)?).await,
        "logout" => driven.logout().await,
        "close" => driven.close().await,
        "status" => driven.status().await,
        "whois" => report::who_is(&*driven.node().await?, &parse(args)?).await,
        "ping" => report::ping(&*driven.node().await?, &parse(args)?).await,
        "listen_tcp" => traffic::listen_tcp(&*driven.node().await?, &parse(args)?),
        "listen_udp" => traffic::listen_udp(&*driven.node().await?, &parse(args)?),
        "transfer" => traffic::transfer(&*driven.node().await?, &parse(args)?).await,
        "datagram" => traffic::datagram(&*driven.node().await?, &parse(args)?).await,
        "flood" => load::flood(&*driven.node().await?, &parse(args)?).await,
        "round_trips" => load::round_trips(&*driven.node().await?, &parse(args)?).await,
        "dial" => driven.dial(&parse(args)?).await,
        "exchange" => driven.exchange(&parse(args)?).await,
        "hang_up" => driven.hang_up(&parse(args)?).await,
        other => bail!("this client has no command {other:?}"),
    }
}

fn parse<A: DeserializeOwned>(args: Value) -> Result<A> {
    serde_json::from_value(args).context("arguments")
}
