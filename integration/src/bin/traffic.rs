//! `traffic`: how much passes between two nodes over one TCP connection, and how long a byte takes there and back: between two
//! nodes of ours, two stock clients, and one of each. `cargo xtask bench traffic` builds what it needs and calls it.
#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use mesh_integration::{Client, Company, Engine, Kind, Lab, Node, Server, Setup};
use serde::Deserialize;
use serde_json::{Value, json};

/// Who sends to whom.
const PAIRS: [(Client, Client); 4] = [
    (Client::Ours, Client::Ours),
    (Client::Tsnet, Client::Tsnet),
    (Client::Ours, Client::Tsnet),
    (Client::Tsnet, Client::Ours),
];

/// The port whose listener reads to the end.
const DRAIN_PORT: u16 = 9;

/// The port whose listener sends back what comes.
const ECHO_PORT: u16 = 7;

/// How many times a byte goes there and back.
const ROUND_TRIPS: u32 = 2000;

/// How long one pair may take beside sending.
const PAIR_MAX: Duration = Duration::from_mins(2);

/// Measures traffic between two nodes.
#[derive(Debug, Parser)]
#[command(name = "traffic")]
struct Arguments {
    /// Seconds of sending each time
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How often each pair sends; the median counts
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

#[derive(Debug, Deserialize)]
struct Flood {
    bytes: f64,
    elapsed_ms: f64,
}

#[derive(Debug, Deserialize)]
struct RoundTrips {
    p50_us: f64,
    p99_us: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    println!("| from, to | way | Mbit/s | round trip p50, p99 |\n|---|---|---|---|");
    for relay_only in [false, true] {
        for (from, to) in PAIRS {
            let told = Mutex::new(None);
            let budget = PAIR_MAX + Duration::from_secs(arguments.seconds) * 6;
            mesh_integration::run_within(budget, Engine::Sqlite, Company::Welcome, async |lab| {
                let line = measure(lab, &arguments, [from, to], relay_only).await?;
                *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
                Ok(())
            });
            let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
            let way = if relay_only { "relay" } else { "direct" };
            println!("| {from:?}, {to:?} | {way} | {} |", told.context("nothing was measured")?);
        }
    }
    Ok(())
}

async fn measure(
    lab: &Lab,
    arguments: &Arguments,
    clients: [Client; 2],
    relay_only: bool,
) -> Result<String> {
    let server = Server::start(lab, Setup::default()).await?;
    server.create_user("alice").await?;
    let key = server.preauth_key("alice", &["--reusable"]).await?;
    let [alpha, beta] = clients.map(|client| Kind { client, relay_only, ..Kind::default() });
    let alpha = Node::join(&server, "alpha", alpha, &key).await?;
    let beta = Node::join(&server, "beta", beta, &key).await?;
    beta.echo(ECHO_PORT).await?;
    let _: Value = beta.call("listen_tcp", json!({"port": DRAIN_PORT, "mode": "drain"})).await?;
    let peer = alpha.reaches("beta").await?;
    beta.reaches("alpha").await?;
    let warm_up = alpha.transfer_to(&peer, ECHO_PORT, 1000).await?;
    if relay_only {
        ensure!(warm_up.cur_addr.is_empty(), "it goes directly");
    } else {
        alpha.reaches_directly(&peer).await?;
    }
    let round_trips = json!({"addr": peer.port(ECHO_PORT)?, "count": ROUND_TRIPS});
    let RoundTrips { p50_us, p99_us } = alpha.call("round_trips", round_trips).await?;
    let flood = json!({"addr": peer.port(DRAIN_PORT)?, "seconds": arguments.seconds});
    let mut rates = Vec::new();
    for _ in 0..arguments.runs {
        let Flood { bytes, elapsed_ms } = alpha.call("flood", &flood).await?;
        rates.push(bytes * 8.0 / elapsed_ms / 1e3);
    }
    rates.sort_by(f64::total_cmp);
    let median = rates.get(rates.len() / 2).context("no run was asked for")?;
    Ok(format!("{median:.0} | {p50_us:.0} us, {p99_us:.0} us"))
}
