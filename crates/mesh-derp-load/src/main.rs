//! Measures DERP relays: many clients in one thread, cheaper than any relay.
//!
//! [`engine`] drives the clients by one epoll loop; [`client`] is one of them, [`traffic`] what they send each other;
//! [`workload`] says what is measured. `mesh-tls` keeps the bench cheaper than the relays it measures.
#![expect(clippy::cast_precision_loss, reason = "figures of a bench are rounded anyhow")]

mod cli;
mod client;
mod engine;
mod latency;
mod mischief;
mod pace;
mod poller;
mod process;
mod report;
mod sequence;
mod stamp;
mod tls;
mod traffic;
mod workload;

use std::io::{self, Write as _};

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls_pki_types::ServerName;

use crate::cli::Cli;
use crate::client::Relay;
use crate::workload::Bench;

fn main() -> Result<()> {
    let cli = Cli::parse();
    ensure!(cli.pid.is_empty() || cli.pid.len() == cli.relay.len(), "one --pid for each --relay");
    if let Some(core) = cli.core {
        process::pin(core)?;
    }
    raise_file_limit();
    let bench = Bench { relays: relays(&cli)?, pids: cli.pid.clone(), seconds: cli.seconds };
    for workload in &cli.workload {
        for case in bench.run(*workload)? {
            let line = serde_json::to_string(&case)?;
            writeln!(io::stdout(), "{line}")?;
        }
    }
    Ok(())
}

fn relays(cli: &Cli) -> Result<Vec<Relay>> {
    let host = ServerName::try_from(cli.host.clone()).context("--host is no host name")?;
    let tls = tls::client_config()?;
    let relay = |addr: &_| Relay { addr: *addr, host: host.clone(), tls: tls.clone() };
    Ok(cli.relay.iter().map(relay).collect())
}

/// Lets us have as many files open as the system allows. If they are too few, a connect says so.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}
