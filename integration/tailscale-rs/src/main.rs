//! The `tailscale` crate's driver: one node in one process, told what to do over stdin and stdout.
//!
//! It is the second, stricter client of the scenarios in `../tests`: one message of the control server that
//! its decoder rejects ends its map stream. The line protocol is that of the tsnet driver, described in
//! `../README.md`, less what this client cannot do: it lists no peers and knows no paths.

mod connection;
mod node;
mod traffic;

use std::{process::exit, sync::Arc};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Stdout},
    sync::Mutex,
};

use crate::{connection::Connections, node::Node};

/// One line of stdin.
#[derive(Deserialize)]
struct Request {
    id: i64,
    cmd: String,
    #[serde(default)]
    args: Value,
}

/// What every command works on.
struct Driver {
    node: Mutex<Node>,
    connections: Mutex<Connections>,
    stdout: Mutex<Stdout>,
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let driver = Arc::new(Driver {
        node: Mutex::default(),
        connections: Mutex::default(),
        stdout: Mutex::new(tokio::io::stdout()),
    });
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let request: Request = serde_json::from_str(&line).context("request")?;
        tokio::spawn(answer(Arc::clone(&driver), request));
    }
    Ok(())
}

/// Runs one request and writes its reply; after `close` the process ends.
async fn answer(driver: Arc<Driver>, request: Request) {
    let (id, last) = (request.id, request.cmd == "close");
    let reply = match run(&driver, request).await {
        Ok(result) => json!({"id": id, "ok": true, "result": result}),
        Err(error) => json!({"id": id, "ok": false, "error": format!("{error:#}")}),
    };
    let mut stdout = driver.stdout.lock().await;
    let written = async {
        stdout.write_all(format!("{reply}\n").as_bytes()).await?;
        stdout.flush().await
    };
    if written.await.is_err() || last {
        exit(0);
    }
}

async fn run(Driver { node, connections, .. }: &Driver, request: Request) -> Result<Value> {
    match request.cmd.as_str() {
        "up" => node.lock().await.up(args(request.args)?).await,
        "close" => node.lock().await.close().await,
        "status" => node::status(&*node.lock().await.device()?).await,
        "whois" => node::whois(&*node.lock().await.device()?, args(request.args)?).await,
        "listen_tcp" => {
            let device = node.lock().await.device()?;
            traffic::listen(&device, args(request.args)?).await
        }
        "listen_udp" => {
            let device = node.lock().await.device()?;
            traffic::listen_udp(&device, args(request.args)?).await
        }
        "datagram" => {
            let device = node.lock().await.device()?;
            traffic::datagram(&device, args(request.args)?).await
        }
        "transfer" => {
            let device = node.lock().await.device()?;
            traffic::transfer(device, args(request.args)?).await
        }
        "dial" => {
            let device = node.lock().await.device()?;
            connection::dial(device, connections, args(request.args)?).await
        }
        "exchange" => connection::exchange(connections, args(request.args)?).await,
        "hang_up" => connection::hang_up(connections, args(request.args)?).await,
        other => bail!("this client has no command {other:?}"),
    }
}

fn args<A: DeserializeOwned>(args: Value) -> Result<A> {
    serde_json::from_value(args).context("arguments")
}
