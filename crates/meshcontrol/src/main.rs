//! The program: `meshcontrol serve`, and the verbs that administer a server.
//!
//! Each verb but `serve` is a client of the admin API, on the server's unix socket or at its address.
//! What people and scripts read goes through [`mesh_cli`]. Exit codes: 0 done; 1 refused or failed;
//! 2 the command line cannot be meant; 3 no server could be reached.

mod api_keys;
mod auth;
mod cli;
mod client;
mod configtest;
mod derp;
mod derp_map;
mod generate;
mod health;
mod logs;
mod nodes;
mod policy;
mod preauth_keys;
mod roots;
mod serve;
mod session;
mod signals;
mod users;
mod version;
mod when;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::client::Unreachable;
use crate::session::Session;

/// Nobody answers: worth another try once the server runs.
const EXIT_UNREACHABLE: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = cli.global.output;
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            if error.is::<Unreachable>() {
                ExitCode::from(EXIT_UNREACHABLE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

#[tokio::main]
async fn run(cli: Cli) -> anyhow::Result<()> {
    // Fails only if there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let session = Session::new(cli.global);
    match cli.command {
        Command::Serve(args) => Box::pin(args.run(&session)).await,
        Command::Derp(args) => Box::pin(args.run(&session)).await,
        Command::Users { verb } => verb.run(&session).await,
        Command::Nodes { verb } => verb.run(&session).await,
        Command::Policy { verb } => verb.run(&session).await,
        Command::Preauthkeys { verb } => verb.run(&session).await,
        Command::DerpMap { verb } => verb.run(&session).await,
        Command::Auth { verb } => verb.run(&session).await,
        Command::Apikeys { verb } => verb.run(&session).await,
        Command::Health => health::run(&session).await,
        Command::Version => version::run(&session),
        Command::Configtest { derp } => configtest::run(&session, derp),
        Command::Generate { verb } => verb.run(&session),
        Command::Completion { shell } => cli::complete(shell),
    }
}
