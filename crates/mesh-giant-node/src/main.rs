//! `giantnode`: measures a node among very many synthetic peers, as Tailscale's `BenchmarkGiantTailnet` does with a stock one.
//!
//! The node under test is alone in its process, so that its memory and processor time can be told. A control server
//! that knows no other node is a child process, or with `--together` in the same thread as the node: it gives the node a first
//! map of so many peers, and then, one step after the other, a message that adds one more and removes the one before.
//!
//! Source: tailscale `tstest/largetailnet`.

mod control;
mod handle;
mod measure;
mod process;
mod tailnet;

use std::io::{stdin, stdout};
use std::os::fd::AsFd as _;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tokio::net::unix::pipe;
use tokio::runtime::Builder;

/// Measures a node among very many synthetic peers.
#[derive(Debug, Parser)]
#[command(name = "giantnode")]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Be the node; the figures are printed as JSON
    Measure(measure::Options),
    /// Be the control server, which the other starts by itself
    Control {
        /// Peers of the first map
        nodes: u32,
    },
}

fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match Arguments::parse().role {
        // Where one thing waits for the other, a second thread would only be one more to wake up.
        Role::Measure(options) if options.together => {
            Builder::new_current_thread().enable_all().build()?.block_on(measure::run(options))
        }
        Role::Measure(options) => {
            Builder::new_multi_thread().enable_all().build()?.block_on(measure::run(options))
        }
        Role::Control { nodes } => {
            Builder::new_current_thread().enable_all().build()?.block_on(serve(nodes))
        }
    }
}

/// Is the control server of whoever started this process.
async fn serve(nodes: u32) -> Result<()> {
    let orders = pipe::Receiver::from_owned_fd(stdin().as_fd().try_clone_to_owned()?)?;
    let answers = pipe::Sender::from_owned_fd(stdout().as_fd().try_clone_to_owned()?)?;
    control::run(nodes, orders, answers).await
}
