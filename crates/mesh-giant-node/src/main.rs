//! `giantnode`: measures a node among very many synthetic peers, as Tailscale's `BenchmarkGiantTailnet` does with a stock one.
//!
//! The node under test is alone in its process, so that its memory and processor time can be told. A control server
//! that knows no other node is a child process: it gives the node a first map of so many peers, and then, one step after the
//! other, a message that adds one more and removes the one before. A step has ended when the node knows the peer.
//!
//! Source: tailscale `tstest/largetailnet`.

mod child;
mod control;
mod measure;
mod process;
mod tailnet;

use anyhow::Result;
use clap::{Parser, Subcommand};

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
        Role::Measure(options) => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(measure::run(options)),
        Role::Control { nodes } => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(control::run(nodes)),
    }
}
