//! Load harness: thousands of fake nodes against any control server.
//!
//! [`cli`] says what it is for; [`phases`] carries them out, [`mod@run`] measures them; [`fleet`] judges what all nodes see; [`node`] is one
//! of them, and [`view`] what it knows. [`reader`] keeps the harness cheaper than the server it measures.

mod bits;
mod cli;
mod fleet;
mod limits;
mod node;
mod phases;
mod pick;
mod process;
mod reader;
mod report;
mod roster;
mod run;
mod sample;
mod view;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use mesh_client::Dialer;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::cli::{Cli, Phase};
use crate::fleet::{Fleet, Shared};
use crate::node::{Node, VERSION};
use crate::pick::Picker;
use crate::process::Process;
use crate::report::Report;
use crate::roster::{Entry, Expected};
use crate::run::Run;

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cli.threads.max(1))
        .enable_all()
        .build()
        .context("no runtime")?;
    let report = runtime.block_on(run(&cli))?;
    // Thousands of nodes would otherwise say goodbye one by one.
    runtime.shutdown_background();
    let text = if cli.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.text() };
    io::stdout().write_all(text.as_bytes())?;
    Ok(if report.right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn run(cli: &Cli) -> Result<Report> {
    let mut run = prepare(cli).await?;
    let (mut phases, mut error) = (Vec::new(), None);
    for phase in &cli.phases {
        match Box::pin(run.phase(phase)).await {
            Ok(rows) => phases.extend(rows),
            Err(cause) => {
                // What was measured before is worth telling.
                error = Some(format!("{cause:#}"));
                break;
            }
        }
    }
    Ok(Report {
        url: cli.url.to_string(),
        seed: cli.seed,
        compress: cli.compress.as_str().to_owned(),
        threads: cli.threads,
        right: error.is_none() && phases.iter().all(report::Phase::is_right),
        error,
        phases,
    })
}

async fn prepare(cli: &Cli) -> Result<Run> {
    let (roster, first) = roster(cli)?;
    let expected = match &*cli.expect {
        "all" => Expected::All,
        file => Expected::read(Path::new(file), &roster)?,
    };
    let dialer = Dialer::new(cli.url.clone(), roots(cli.ca.as_deref())?);
    let server_key = dialer.server_key(VERSION).await;
    let server_key = server_key.with_context(|| format!("no control server at {}", cli.url))?;
    let compress = cli.compress.as_str();
    let concurrency = cli.concurrency.unwrap_or(roster.len());
    let shared = Arc::new(Shared::new(dialer, server_key, compress, concurrency.max(1)));
    let indexed = (0..).zip(roster.iter().cloned());
    let nodes: Vec<_> =
        indexed.map(|(index, entry)| Arc::new(Node::new(entry, index, cli.seed))).collect();
    nodes.iter().take(cli.verify_samples.min(first)).for_each(|node| node.sample());
    let server = cli.server_pid.as_deref().map(|source| Process::watch(source.into()));
    Ok(Run {
        fleet: Fleet::new(nodes, shared, expected, cli.ignore_others),
        server: server.transpose()?,
        own: Process::own()?,
        picker: Picker::new(cli.seed),
        limit: Duration::from_secs(cli.limit),
        quiet_limit: Duration::from_secs(cli.quiet_limit),
        first,
        roster,
        restart_command: cli.restart_cmd.clone(),
        policy_command: cli.policy_cmd.clone(),
        policy_expected: cli.policy_expect.iter().cloned().collect(),
        edits: 0,
        waits: 0,
    })
}

/// The nodes, and how many of them join at first: the rest is for `join-one`. There may be as many files open.
fn roster(cli: &Cli) -> Result<(Vec<Entry>, usize)> {
    let singles = cli.phases.iter().filter(|phase| **phase == Phase::JoinOne).count();
    let path = Path::new(&cli.keys);
    if !path.exists() {
        let first = cli.nodes.context("--nodes is missing: how many share the one key?")?;
        limits::raise_file_limit(first + singles)?;
        return Ok((roster::sharing(&cli.keys, first + singles), first));
    }
    let mut roster = roster::read_keys(path)?;
    let first = cli.nodes.unwrap_or(roster.len().saturating_sub(singles));
    let needed = first + singles;
    ensure!(
        roster.len() >= needed,
        "{} has {} nodes, and {needed} are needed",
        cli.keys,
        roster.len()
    );
    roster.truncate(needed);
    limits::raise_file_limit(needed)?;
    Ok((roster, first))
}

fn roots(file: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else { return Ok(roots) };
    let read = || format!("cannot read {}", file.display());
    for certificate in CertificateDer::pem_file_iter(file).with_context(read)? {
        roots.add(certificate.with_context(read)?).with_context(read)?;
    }
    Ok(roots)
}
