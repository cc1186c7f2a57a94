//! `meshnode`: a node of a tailnet as a daemon, and the verbs that speak to it.
//!
//! `up` runs the daemon: it owns the node, and answers the local API on a unix socket in its state directory. Every other
//! verb is a client of that socket. Exit codes: 0 done; 1 refused or failed; 2 the command line cannot be meant; 3 no
//! daemon could be reached.

mod cli;
mod client;
mod daemon;
mod forward;
mod nc;
mod netcheck;
mod ping;
mod settings;
mod state_dir;
mod status;
mod up;
mod whois;

use std::process::ExitCode;

use clap::Parser as _;
use mesh_cli::Output;
use tokio::runtime::Runtime;

use crate::cli::{Cli, Command};
use crate::client::{LocalClient, Unreachable};

/// No daemon answers: worth another try once one runs.
const EXIT_UNREACHABLE: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = cli.global.output();
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(output, &error.into()),
    };
    let ended = runtime.block_on(run(cli));
    // Something may still wait for a key to be pressed.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(output, &error),
    }
}

fn fail(output: Output, error: &anyhow::Error) -> ExitCode {
    output.error(error);
    if error.is::<Unreachable>() { ExitCode::from(EXIT_UNREACHABLE) } else { ExitCode::FAILURE }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    // Fails only if there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (output, state_dir) =
        (cli.global.output(), state_dir::StateDir::choose(cli.global.state_dir)?);
    let client = LocalClient::new(&state_dir)?;
    match cli.command {
        Command::Up(args) => args.run(&state_dir, &client, output).await,
        Command::Down => up::down(&client, output).await,
        Command::Logout => up::logout(&client, output).await,
        Command::Status(args) => args.run(&client, output).await,
        Command::Ip(args) => args.run(&client, output).await,
        Command::Ping(args) => args.run(&client, output).await,
        Command::Whois(args) => args.run(&client, output).await,
        Command::Netcheck => netcheck::run(&client, output).await,
        Command::Nc(args) => args.run(&client).await,
        Command::Forward(args) => args.run(client, output).await,
        Command::ServeSocks5(args) => args.run(client, output).await,
    }
}
